//! Services that nobody here wrote, under load and watched as users would: no crash, no signal missing, figures that are the
//! services' own. By `cargo xtask test --services`, which builds them and writes docs/real-services.md.

mod common;
#[path = "services/running.rs"]
mod running;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use common::{Agent, DEFAULTS, Load, Output, attribute, findings, number_of, privileged, shop, stock};
use running::{KINDS, Kind, Running, built, load_built};
use serde_json::Value;

/// Length of a stretch of load, s, and how many there are with the agent and as many without, in turns.
const SECONDS: u32 = 8;
/// The stretch in which requests are counted: some windows.
const COUNTED_SECONDS: u32 = 24;
const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 16;

/// The load generator on a service; a `rate` of 0 is a closed loop.
fn load_command(
    program: &Path,
    kind: &Kind,
    running: &Running,
    seconds: u32,
    (connections, rate): (u32, u32),
) -> Command {
    let address = format!("127.0.0.1:{}", running.ports.first);
    let numbers = [seconds, connections, rate].map(|number| number.to_string());
    let mut command = Command::new(program);
    command.args([kind.name, &address]).args(numbers);
    command
}

/// Requests answered a second, in a closed loop.
fn load(program: &Path, kind: &Kind, running: &Running, seconds: u32) -> f64 {
    let output = load_command(program, kind, running, seconds, (CONNECTIONS, 0))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", kind.name);
    let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts["failed"], 0, "{}: {said}", kind.name);
    let requests = counts["requests"].as_i64().unwrap();
    requests as f64 / counts["seconds"].as_f64().unwrap()
}

fn sum(points: &[Value], field: &str) -> i64 {
    points.iter().map(|point| number_of(&point[field])).sum()
}

/// Signals of the service, and how much of each there is.
fn states(output: &Output, service: &str) -> Vec<(String, String)> {
    let text = |point: &Value, key: &str| Some(attribute(point, key)?.as_str()?.to_owned());
    let points = output.points(service, "whywait.signal.state");
    let states = points.iter().filter_map(|point| {
        let keys = ["whywait.signal", "whywait.coverage"];
        Some((text(point, keys[0])?, text(point, keys[1])?))
    });
    states.collect()
}

/// What a watched stretch gave, beside what the service and the load generator say.
struct Figures {
    /// Counted, and those answered in the time that windows stand for.
    requests: (i64, f64),
    cycles: (i64, i64),
    goroutines: (i64, Option<i64>),
    lost: i64,
    states: Vec<(String, String)>,
    said: String,
}

fn watched(program: &Path, kind: &Kind, running: &Running, seconds: u32, options: &[&str]) -> (f64, Figures) {
    let pid = running.child.id().to_string();
    let args = [&["--pid", &pid, "--metric-interval", "1s"], options].concat();
    let agent = Agent::run_with(&args, 1, &DEFAULTS);
    let rate = load(program, kind, running, seconds);
    // The last interval's end.
    thread::sleep(Duration::from_millis(1500));
    let own = running.goroutines(kind);
    let output = agent.stop();
    let cycles = running.cycles();
    let service = kind.name;
    let served = output.points(service, "whywait.server.request.duration");
    let windows = output.points(service, "whywait.window.time");
    let of_hooks = |point: &&Value| attribute(point, "whywait.plane") == Some("sockets".into());
    let windows = windows.iter().filter(of_hooks).map(|point| number_of(&point["asInt"]));
    let windows = windows.sum::<i64>() as f64 / 1e9;
    let lost = output.points("whywait", "whywait.events.dropped");
    let figures = Figures {
        requests: (sum(&served, "count"), rate * windows),
        cycles: (sum(&output.points(service, "go.memory.gc.cycles"), "asInt"), cycles),
        goroutines: (sum(&output.points(service, "go.goroutine.count"), "asInt"), own),
        lost: sum(&lost, "asInt"),
        states: states(&output, service),
        said: output.said,
    };
    (rate, figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn observe(program: &Path, load_program: &Path, version: &str, kind: &Kind) -> String {
    let mut running = Running::start(kind, program);
    load(load_program, kind, &running, SECONDS);
    let (mut without, mut with, mut last) = (Vec::new(), Vec::new(), None);
    for _ in 0..ROUNDS {
        without.push(load(load_program, kind, &running, SECONDS));
        let (rate, figures) = watched(load_program, kind, &running, SECONDS, &[]);
        with.push(rate);
        last = Some(figures);
    }
    // Their cores are busy: for the tail's sake so short a stretch holds hardly a window.
    let options = ["--budget-p99", "off"];
    let of_counted = watched(load_program, kind, &running, COUNTED_SECONDS, &options).1;
    let (counted, answered) = of_counted.requests;
    let counted = counted as f64 / answered;
    assert!(
        (0.5..1.5).contains(&counted),
        "{}: {counted} of the requests",
        kind.name
    );
    assert!(running.is_alive(), "{} ended", kind.name);
    let of = last.unwrap();
    assert!(!of.states.is_empty(), "{}: {}", kind.name, of.said);
    // Under a budget, what costs by the event is seen in windows.
    let (full, others): (Vec<_>, Vec<_>) = of.states.iter().partition(|(_, state)| state == "full");
    let missing: Vec<_> = others.iter().filter(|(_, state)| state != "windows").collect();
    assert!(missing.is_empty(), "{}: {missing:?}\n{}", kind.name, of.said);
    // The last cycle may have ended between the two looks.
    let (ours, own) = of.cycles;
    assert!(
        (own - 1..=own).contains(&ours) || own == 0,
        "{}: {ours} GC cycles of {own}",
        kind.name
    );
    if let (ours, Some(own)) = of.goroutines {
        assert!((ours - own).abs() <= 8, "{}: {ours} goroutines of {own}", kind.name);
    }
    let (without, with) = (median(without), median(with));
    format!(
        "| {} {version} | {without:.0} | {with:.0} | {:.3} | {counted:.2} | {ours} / {own} | {} / {} | {} and {} | {} |",
        kind.name,
        with / without,
        of.goroutines.0,
        of.goroutines.1.map_or("–".to_owned(), |own| own.to_string()),
        full.len(),
        others.len(),
        of.lost
    )
}

#[test]
#[ignore = "builds four services: cargo xtask test --services"]
fn services_that_nobody_here_wrote_are_watched_whole() {
    if !privileged() {
        return;
    }
    let load_program = load_built();
    let only = std::env::var("WHYWAIT_SERVICES").unwrap_or_default();
    let kinds = KINDS
        .iter()
        .filter(|kind| only.is_empty() || only.split(',').any(|name| name == kind.name));
    let mut rows = String::new();
    for kind in kinds {
        let (program, version) = built(kind);
        let row = observe(&program, &load_program, &version, kind);
        println!("{row}");
        let _ = writeln!(rows, "{row}");
    }
    let text = format!(
        "# Services of other projects\nMeasured by `cargo xtask test --services`: each is built from its module. {CONNECTIONS} \
         connections send requests and wait for the answers, for {SECONDS} s at a time, {ROUNDS} times without the agent and {ROUNDS} \
         times with it, in turns; medians. The agent runs with its default budget of 1 %. Load, service and agent share the machine's \
         cores. \"Requests counted\" is the number of requests that whywait reports, scaled by its windows, divided by the number of \
         answers that the load generator got in the time that the windows stand for; this takes {COUNTED_SECONDS} s more, with \
         --budget-p99 off. GC cycles are whywait's / the runtime's own (gctrace). Goroutines are whywait's / the service's own, if the \
         service reports them.\n\n| service | requests/s without | with | ratio | requests counted | GC cycles | goroutines | signals \
         always and in windows, none missing | events lost |\n|---|---|---|---|---|---|---|---|---|\n{rows}"
    );
    if only.is_empty() {
        fs::write(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/real-services.md"),
            text,
        )
        .unwrap();
    }
}

/// How long healthy services are watched, s, and the load on each, requests a second.
const HEALTHY_SECONDS: u32 = 600;
const HEALTHY_RATE: u32 = 200;
const HEALTHY_CONNECTIONS: u32 = 4;

/// A finding is worth a look: there is none on services that are well, under the defaults, however long they are watched.
#[test]
#[ignore = "builds four services: cargo xtask test --services"]
fn healthy_services_have_no_findings() {
    if !privileged() {
        return;
    }
    let seconds = std::env::var("WHYWAIT_HEALTHY_SECONDS").map_or(HEALTHY_SECONDS, |text| text.parse().unwrap());
    let load_program = load_built();
    let stock = stock(false);
    let shop = shop(Some(&stock), &[]);
    let running: Vec<(&Kind, Running)> = KINDS
        .iter()
        .map(|kind| (kind, Running::start(kind, &built(kind).0)))
        .collect();
    let pids = running.iter().map(|(_, running)| running.child.id());
    let pids: Vec<String> = pids
        .chain([shop.pid(), stock.pid()])
        .map(|pid| pid.to_string())
        .collect();
    let agent = Agent::run_with(&["--pid", &pids.join(",")], pids.len(), &DEFAULTS);
    let rate = (HEALTHY_CONNECTIONS, HEALTHY_RATE);
    let loads: Vec<Child> = running
        .iter()
        .map(|(kind, running)| {
            let mut command = load_command(&load_program, kind, running, seconds, rate);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let of_shop = Load::start(&[shop.url("/item?id={n}")], HEALTHY_RATE, seconds, HEALTHY_CONNECTIONS);
    for (load, (kind, _)) in loads.into_iter().zip(&running) {
        let output = load.wait_with_output().unwrap();
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
        let least = i64::from(seconds * HEALTHY_RATE) * 9 / 10;
        assert!(
            counts["requests"].as_i64() >= Some(least) && counts["failed"] == 0,
            "{}: {counts}",
            kind.name
        );
        println!("{}: {counts}", kind.name);
    }
    of_shop.stop();
    let output = agent.stop();
    println!("{}", output.said);
    // Without figures there is nothing to find.
    let services = KINDS.iter().map(|kind| kind.name).chain(["go-shop", "rust-stock"]);
    for service in services {
        let served = output.points(service, "whywait.server.request.duration");
        assert!(sum(&served, "count") >= 1000, "{service}: {served:?}");
        assert_eq!(
            findings(&output.metrics, service),
            BTreeSet::new(),
            "{service}: {}",
            output.said
        );
    }
}
