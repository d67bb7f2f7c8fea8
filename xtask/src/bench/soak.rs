//! The agent beside services under full load for a long time: whether its memory stays what it was, and whether it loses anything.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{
    plot::{self, Chart, Curve},
    service::{self, Report, Running, Used, used},
    stats::median,
};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// How long, after a first minute that does not count
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Measure the agent and the services as they are built
    #[arg(long)]
    as_built: bool,
    /// Arguments of the agent besides the targets, e.g. `-- --budget off`
    #[arg(last = true)]
    agent: Vec<String>,
}

const MINUTE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(5);
/// How much memory may come or go, MiB.
const BAR: f64 = 2.0;
/// Connections of each service's load.
const CONNECTIONS: u32 = 2;
/// Parts of the time that are told apart.
const PARTS: usize = 10;
/// Warnings of the agent that are shown.
const SHOWN: usize = 10;

/// A service's load: a closed loop, so that it takes what the machine has.
struct Load {
    name: &'static str,
    path: &'static str,
    running: Running,
    json: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<()> {
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    if options.minutes == 0 {
        bail!("--minutes starts at 1");
    }
    let (agent, demo) = service::programs(options.as_built)?;
    let folder = sh::target().join("xtask/bench-soak");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let stock = service::service(&demo, "rust-stock", &[])?;
    let shop = service::service(&demo, "go-shop", &["--stock", &format!("http://{}", stock.1)])?;
    let seconds = (options.minutes + 1) * MINUTE.as_secs();
    let loads = [
        ("go-shop", &shop.1, "/item?id={n}"),
        ("rust-stock", &stock.1, "/stock/{n}"),
    ];
    let said = Arc::new(Mutex::new(Vec::new()));
    let hear = {
        let said = Arc::clone(&said);
        move |line: &str| {
            let tells = line.starts_with("lost:") || line.starts_with("whywait ran ") || line.contains(" WARN ");
            if let (true, Ok(mut said)) = (tells, said.lock()) {
                said.push(line.to_owned());
            }
        }
    };
    let args: Vec<&str> = options.agent.iter().map(String::as_str).collect();
    let pids = [shop.0.pid(), stock.0.pid()];
    let watching = service::agent_heard(&agent, &pids, &args, &folder.join("out"), hear)?;
    let loads = loads
        .map(|(name, address, path)| load(&demo, &folder, (name, address, path), seconds))
        .into_iter()
        .collect::<Result<Vec<Load>>>()?;
    thread::sleep(MINUTE);
    let looks = look(watching.pid(), options.minutes)?;
    let mut carried = Vec::new();
    for load in loads {
        load.running.wait()?;
        let report = Report::read(&load.json, load.name)?;
        carried.push(format!("{} {} {:.0}/s", load.name, load.path, report.achieved_rate));
    }
    watching.end()?;
    let said = said
        .lock()
        .map_err(|_| anyhow::anyhow!("the agent's reader panicked"))?;
    let text = report(&looks, &carried, &said, options)?;
    service::keep("soak.svg", &picture(&looks)?)?;
    service::publish("soak.md", &text)
}

fn picture(looks: &[Used]) -> Result<String> {
    let minutes = |look: usize| look as f64 * LOOK.as_secs_f64() / MINUTE.as_secs_f64();
    plot::chart_of(&Chart {
        title: "The agent's memory",
        x: "minutes",
        y: "RSS, MiB",
        curves: vec![Curve::line(
            "RSS",
            (0..).zip(looks).map(|(look, used)| (minutes(look), used.rss)),
        )],
        bar: None,
        logarithmic: false,
    })
}

fn load(
    demo: &Path,
    folder: &Path,
    (name, address, path): (&'static str, &str, &'static str),
    seconds: u64,
) -> Result<Load> {
    let json = folder.join(format!("{name}.json"));
    let mut command = service::load(demo, &format!("http://{address}{path}"), (0.0, CONNECTIONS), seconds);
    command.arg("--json").arg(&json);
    let running = Running::start(command, 0, |_| None)?.0;
    Ok(Load {
        name,
        path,
        running,
        json,
    })
}

fn look(pid: u32, minutes: u64) -> Result<Vec<Used>> {
    let (began, mut looks) = (Instant::now(), Vec::new());
    let mut minute = 0;
    while began.elapsed() < MINUTE * minutes as u32 {
        looks.push(used(pid)?);
        let now = began.elapsed().as_secs() / MINUTE.as_secs();
        if now > minute {
            minute = now;
            let rss = looks.last().map_or(0.0, |used| used.rss);
            progress::note(&format!("minute {minute} of {minutes}: {rss:.1} MiB"));
        }
        thread::sleep(LOOK);
    }
    looks.push(used(pid)?);
    Ok(looks)
}

fn report(looks: &[Used], carried: &[String], said: &[String], options: &Options) -> Result<String> {
    let last = |start: &str| said.iter().rfind(|line| line.starts_with(start));
    let ran = last("whywait ran ").context("the agent did not say how it ended")?;
    let lost = last("lost:").context("the agent did not say what it lost")?;
    let mut text = format!(
        "# A long run\nMeasured by `cargo xtask bench soak` on {}: {} minutes, after a first one that does not count. Services, load \
         generators and agent share the cores. Arguments of the agent besides its targets: {}. Closed loops of {CONNECTIONS} \
         connections each: {}. Memory is VmRSS, CPU is of one core; both were read every {} s. The machine's load average over the \
         last 15 minutes was {}.\n\n",
        service::machine(),
        options.minutes,
        match options.agent.as_slice() {
            [] => "none".to_owned(),
            args => format!("`{}`", args.join(" ")),
        },
        carried.join(", "),
        LOOK.as_secs(),
        std::fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .split(' ')
            .nth(2)
            .unwrap_or("not known"),
    );
    text += "![Memory over time](soak.svg)\n\n";
    text += "| part of the time | RSS, MiB: minimum | median | maximum | CPU |\n|---|---|---|---|---|\n";
    let row = |name: &str, looks: &[Used]| {
        let mut rss: Vec<f64> = looks.iter().map(|used| used.rss).collect();
        let (least, most) = range(looks);
        let cpu = looks[looks.len() - 1].cpu - looks[0].cpu;
        let seconds = (looks.len() - 1).max(1) as f64 * LOOK.as_secs_f64();
        format!(
            "| {name} | {least:.1} | {:.1} | {most:.1} | {:.2} % |\n",
            median(&mut rss),
            100.0 * cpu / seconds
        )
    };
    // Each part begins with the last look of the one before, so that no CPU time falls between.
    let part = (looks.len() - 1).div_ceil(PARTS).max(1);
    for (number, first) in (0..looks.len() - 1).step_by(part).enumerate() {
        let looks = &looks[first..=(first + part).min(looks.len() - 1)];
        let _ = write!(text, "{}", row(&format!("{}", number + 1), looks));
    }
    text += &row("all", looks);
    let (least, most) = range(looks);
    let verdict = if most - least <= 2.0 * BAR { "met" } else { "**missed**" };
    let _ = write!(
        text,
        "\nBar: ± {BAR} MiB, {verdict} (± {:.1}).\n\nIts last lines:\n\n```text\n{lost}\n{ran}\n```\n",
        (most - least) / 2.0
    );
    let warnings: Vec<&String> = said.iter().filter(|line| line.contains(" WARN ")).collect();
    let _ = writeln!(text, "\nWarnings in its log: {}.", warnings.len());
    for warning in warnings.iter().take(SHOWN) {
        let _ = writeln!(text, "- {warning}");
    }
    Ok(text)
}

/// Least and most memory, MiB.
fn range(looks: &[Used]) -> (f64, f64) {
    let rss = looks.iter().map(|used| used.rss);
    (rss.clone().fold(f64::INFINITY, f64::min), rss.fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_is_met_and_growth_is_missed() {
        let options = Options {
            minutes: 30,
            as_built: false,
            agent: Vec::new(),
        };
        let said = ["lost: nothing", "whywait ran 31m"].map(str::to_owned);
        let check = |rss: &dyn Fn(usize) -> f64, verdict: &str| {
            let looks: Vec<Used> = (0..361)
                .map(|at| Used {
                    cpu: at as f64 / 100.0,
                    rss: rss(at),
                })
                .collect();
            let text = report(&looks, &[], &said, &options).unwrap();
            assert!(text.contains(verdict), "{text}");
            assert!(text.contains("| 10 | "), "{text}");
            assert!(!text.contains("| 11 | "), "{text}");
            assert!(text.contains("| 0.20 % |"), "{text}");
        };
        check(&|at| 17.0 + 0.1 * (at % 7) as f64, "met (± 0.3)");
        check(&|at| 17.0 + 0.02 * at as f64, "**missed** (± 3.6)");
    }
}
