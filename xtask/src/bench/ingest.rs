//! `cargo xtask bench ingest` and `ringbuf`: how many events the agent takes in, and how many the ring buffer carries.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    plot::{self, Chart, Curve, Panel},
    service,
    stats::Estimate,
};
use crate::{build, demo_build, progress, setup, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Events to take in, in millions
    #[arg(long, default_value_t = 30)]
    millions: u32,
    /// Measure this recording (`whywait record`) instead of one made of the demo services
    #[arg(long)]
    recording: Option<std::path::PathBuf>,
}

#[derive(Args)]
pub(crate) struct RingOptions {
    /// Size of the ring buffer, bytes
    #[arg(long, default_value_t = 1 << 20)]
    bytes: u32,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    events: u64,
    spans: u64,
    bytes: u64,
    events_per_second: f64,
    allocations_per_event: f64,
    rss: [u64; 3],
}

#[derive(Deserialize)]
struct Step {
    asked_per_second: u64,
    written_per_second: u64,
    written: u64,
    received: u64,
    lost: u64,
}

/// Replaying needs no privilege; making the recording does.
pub(super) fn run(options: Options) -> Result<()> {
    let tools = setup::ensure(setup::Wanted::default())?;
    examples()?;
    let recording = match options.recording {
        Some(recording) => recording,
        None => record(&demo_build::all(&tools)?, &build::agent()?)?,
    };
    let rows: Vec<Row> = example(
        "ingest",
        &[&recording.display().to_string(), &options.millions.to_string()],
    )?;
    let mut text = format!(
        "# Event throughput of the agent\nMeasured by `cargo xtask bench ingest`: it processes the events of a recording of both demo \
         services again and again, on one core: decode, correlate, encode as OTLP protobuf. {}\n\nAn event is a value over a \
         threshold; the kernel counts all other values in histograms. At most 1000 events of each target become spans in a second \
         (`--max-spans`), and the others are counted; the second row has that limit at three million events a second. Allocations are \
         those of all three steps. Memory is the resident set at the begin, in the middle and at the end.\n\n![Events a \
         second](ingest.svg)\n\n| | events | spans | OTLP, MB | events/s | allocations/event | memory, MB \
         |\n|---|---|---|---|---|---|---|\n",
        service::machine()
    );
    let panel = Panel {
        title: "Events taken in, million a second and core; the line is the bar".to_owned(),
        rows: rows
            .iter()
            .map(|row| (row.name.clone(), Estimate::exact(row.events_per_second / 1e6)))
            .collect(),
        even: None,
        bar: Some(3.0),
    };
    service::keep("ingest.svg", &plot::panels(&[panel])?)?;
    for row in rows {
        let [begin, midst, end] = row.rss.map(|kb| kb as f64 / 1024.0);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} | {:.2} million | {:.4} | {begin:.1}, {midst:.1}, {end:.1} |",
            row.name,
            row.events,
            row.spans,
            row.bytes as f64 / 1e6,
            row.events_per_second / 1e6,
            row.allocations_per_event,
        );
    }
    service::publish("ingest.md", &text)
}

pub(super) fn ringbuf(options: RingOptions) -> Result<()> {
    if !sh::is_root() {
        bail!("only root may load the producer: run this as root");
    }
    setup::ensure(setup::Wanted::default())?;
    examples()?;
    let steps: Vec<Step> = example("ringbuf", &[&options.bytes.to_string()])?;
    let first = steps.iter().find(|step| step.lost > 0);
    let verdict = match first {
        Some(step) => format!("The first event is lost at {} per second.", step.written_per_second),
        None => "None was lost.".to_owned(),
    };
    let mut text = format!(
        "# Throughput of the ring buffer\nMeasured by `cargo xtask bench ringbuf`: a kernel program writes events of 72 bytes in \
         bursts of 1 ms, at a rising rate, for 2 s at each rate, into a ring buffer of {} bytes. The reader reads and decodes them as \
         the agent does, every 10 ms and when a quarter is full. {}. {verdict} Written = received + lost in every row.\n\n![Written, \
         received and lost by requested rate](ringbuf.svg)\n\n| requested per second | written per second | written | received | \
         counted as lost |\n|---|---|---|---|---|\n",
        options.bytes,
        service::machine()
    );
    service::keep("ringbuf.svg", &ring_picture(&steps)?)?;
    for step in steps {
        let Step {
            asked_per_second,
            written_per_second,
            written,
            received,
            lost,
        } = step;
        if written != received + lost {
            bail!(
                "at {asked_per_second} events/s {written} were written, {received} received and {lost} lost: some are unaccounted for"
            );
        }
        let _ = writeln!(
            text,
            "| {asked_per_second} | {written_per_second} | {written} | {received} | {lost} |"
        );
    }
    service::publish("ringbuf.md", &text)
}

fn ring_picture(steps: &[Step]) -> Result<String> {
    let curve = |name, figure: fn(&Step) -> u64| {
        // Of what was written in some seconds, in one.
        let rate = |step: &Step| step.written_per_second as f64 * figure(step) as f64 / (step.written as f64).max(1.0);
        Curve::line(
            name,
            steps.iter().map(|step| (step.asked_per_second as f64, rate(step))),
        )
    };
    plot::chart_of(&Chart {
        title: "What the ring buffer carries",
        x: "events asked for, a second",
        y: "events a second",
        curves: vec![
            curve("written", |step| step.written),
            curve("received", |step| step.received),
            curve("lost", |step| step.lost),
        ],
        bar: None,
        logarithmic: true,
    })
}

/// Some seconds of both services in which everything is an event.
fn record(folder: &Path, agent: &Path) -> Result<std::path::PathBuf> {
    if !sh::is_root() {
        bail!("only root may record: run this as root, or give a --recording");
    }
    let file = sh::target().join("xtask/bench.rec");
    let _ = std::fs::remove_file(&file);
    let stock = service::service(folder, "rust-stock", &[])?;
    let shop = service::service(folder, "go-shop", &["--stock", &format!("http://{}", stock.1)])?;
    progress::note("recording the demo services");
    let out = sh::target().join("xtask/bench-out");
    let args = [
        "--budget",
        "off",
        "--slow-wait",
        "0s",
        "--slow-poll",
        "0s",
        "--slow-request",
        "0s",
    ];
    let agent = service::recorder(agent, &file, &[shop.0.pid(), stock.0.pid()], &args, &out)?;
    for path in ["/item?id={n}", "/gc"] {
        service::window(folder, shop.0.pid(), &format!("http://{}{path}", shop.1), (300.0, 2), 3)?;
    }
    agent.end()?;
    Ok(file)
}

pub(super) fn examples() -> Result<()> {
    let mut build = sh::cargo(&["build", "--release", "--package", "agent", "--examples"]);
    progress::step("Building the measured parts", &mut build)
}

fn example<T: DeserializeOwned>(name: &str, args: &[&str]) -> Result<T> {
    progress::note(&format!("measuring {name}"));
    let program = sh::target().join("release/examples").join(name);
    let json = sh::capture(&mut sh::cmd(program.display().to_string(), args))?;
    serde_json::from_str(&json).with_context(|| format!("{name} said {json:?}"))
}
