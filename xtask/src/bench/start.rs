//! How long after its start the agent says something, and all that it was asked for, by the number of targets.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use super::{
    plot::{self, Chart, Curve},
    service::{self, Running, Used, used},
    stats::median,
};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Numbers of targets, the one to compare with first
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 200])]
    targets: Vec<usize>,
    /// Starts of the agent with each number
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure the agent and the services as they are built
    #[arg(long)]
    as_built: bool,
}

/// What the targets are called: nobody else's services are to be found by this name. A kernel's limit is 15 characters.
const NAME: &str = "bench-go-shop";
/// The agent exports on whole seconds at most.
const INTERVAL: &str = "1s";
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// One start of the agent.
struct Round {
    /// From exec to the first metric of a target, s.
    first: f64,
    /// From exec to the last target's probes, s.
    all: f64,
    /// Of the agent, at the later of the two.
    used: Used,
    /// From asking it to end to its end, s: the kernel takes every probe away.
    end: f64,
}

pub(super) fn run(options: Options) -> Result<()> {
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    if options.rounds == 0 || options.targets.is_empty() || options.targets.contains(&0) {
        bail!("--rounds and --targets start at 1");
    }
    let (agent, demo) = service::programs(options.as_built)?;
    let folder = sh::target().join("xtask/bench-start");
    sh::install(&demo.join("go-shop"), &folder.join(NAME))?;
    let mut targets: Vec<(Running, String)> = vec![service::service(&folder, NAME, &[])?];
    let fits = fitting(targets[0].0.pid())?;
    let _load = load(&demo, &targets[0].1)?;
    let mut rows = Vec::new();
    let mut cut = Vec::new();
    for wanted in options.targets {
        let count = wanted.min(fits);
        if count < wanted {
            cut.push(wanted);
        }
        targets.truncate(count);
        while targets.len() < count {
            targets.push(service::service(&folder, NAME, &[])?);
        }
        let pids: HashSet<u32> = targets.iter().map(|target| target.0.pid()).collect();
        let mut rounds = Vec::new();
        for number in 1..=options.rounds {
            progress::note(&format!("{count} targets, start {number} of {}", options.rounds));
            rounds.push(round(&agent, &pids, &folder.join("out"))?);
        }
        rows.push((count, rounds));
    }
    service::keep("start.svg", &picture(&rows)?)?;
    service::publish("start.md", &report(&rows, &cut, options.rounds))
}

fn picture(rows: &[(usize, Vec<Round>)]) -> Result<String> {
    let curve = |name, figure: fn(&Round) -> f64| {
        let middle = |rounds: &[Round]| median(&mut rounds.iter().map(figure).collect::<Vec<f64>>());
        let points = rows.iter().map(|(count, rounds)| (*count as f64, middle(rounds)));
        Curve::line(name, points)
    };
    plot::chart_of(&Chart {
        title: "From start to first signal, and to the end",
        x: "targets",
        y: "s, medians",
        curves: vec![
            curve("first metric", |round| round.first),
            curve("all watched", |round| round.all),
            curve("end", |round| round.end),
        ],
        bar: None,
        logarithmic: true,
    })
}

/// How many targets half of the free memory holds, by what one takes; the agent and the others here need the rest.
fn fitting(pid: u32) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let free = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = free.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    let free = free.context("/proc/meminfo has no MemAvailable")? / 1024.0;
    Ok((free / 2.0 / used(pid)?.rss).max(1.0) as usize)
}

/// A little load on one target, until it is dropped.
fn load(demo: &Path, address: &str) -> Result<Running> {
    let command = service::load(demo, &format!("http://{address}/item?id={{n}}"), (50.0, 1), 0);
    Ok(Running::start(command, 0, |_| None)?.0)
}

fn round(agent: &Path, pids: &HashSet<u32>, out: &Path) -> Result<Round> {
    if out.exists() {
        std::fs::remove_dir_all(out)?;
    }
    let mut command = Command::new(agent);
    command.args(["run", "--plain", "--name", NAME, "--metric-interval", INTERVAL, "--out"]);
    command.arg(out).env("RUST_LOG", "info");
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let metrics = thread::spawn({
        let (file, pids, over) = (out.join("metrics.jsonl"), pids.clone(), Arc::clone(&over));
        move || first_metric(&file, &pids, &over).map(|()| began.elapsed())
    });
    let announced = pids.clone();
    let started = Running::start(command, pids.len(), move |line| {
        let (_, rest) = line.split_once(" watching ")?;
        let (_, rest) = rest.split_once("(pid ")?;
        let pid = rest.split(')').next()?.parse().ok()?;
        announced.contains(&pid).then(|| line.to_owned())
    });
    let all = began.elapsed();
    if started.is_err() {
        over.store(true, Ordering::Relaxed);
    }
    let first = metrics
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of metrics panicked"))?;
    let (running, _) = started?;
    let first = first?;
    let used = used(running.pid())?;
    let asked = Instant::now();
    running.end()?;
    Ok(Round {
        first: first.as_secs_f64(),
        all: all.as_secs_f64(),
        used,
        end: asked.elapsed().as_secs_f64(),
    })
}

/// Returns as soon as a line of the file has a metric of a target.
fn first_metric(file: &PathBuf, pids: &HashSet<u32>, over: &AtomicBool) -> Result<()> {
    let began = Instant::now();
    let mut reader = None;
    let mut line = String::new();
    while began.elapsed() < LIMIT && !over.load(Ordering::Relaxed) {
        if reader.is_none() {
            reader = std::fs::File::open(file).ok().map(BufReader::new);
        }
        if let Some(reader) = &mut reader {
            reader.read_line(&mut line)?;
        }
        if !line.ends_with('\n') {
            // Not there yet, or only its beginning.
            thread::sleep(LOOK);
            continue;
        }
        let value: Value = serde_json::from_str(&line).context("a line of metrics.jsonl")?;
        if of_target(&value, pids) {
            return Ok(());
        }
        line.clear();
    }
    bail!("no metric of a target within {} s", LIMIT.as_secs())
}

fn of_target(line: &Value, pids: &HashSet<u32>) -> bool {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    list(line, "resourceMetrics").iter().any(|resource| {
        let ours = list(&resource["resource"], "attributes").iter().any(|attribute| {
            let pid = attribute["value"]["intValue"].as_str().and_then(|pid| pid.parse().ok());
            attribute["key"] == "process.pid" && pid.is_some_and(|pid| pids.contains(&pid))
        });
        let scopes = list(resource, "scopeMetrics");
        ours && scopes.iter().any(|scope| !list(scope, "metrics").is_empty())
    })
}

fn report(rows: &[(usize, Vec<Round>)], cut: &[usize], rounds: usize) -> String {
    let mut text = format!(
        "# From start to first signal\nMeasured by `cargo xtask bench start`: {rounds} starts of the agent for each number of targets. \
         {}; targets and agent share the cores. Targets are processes of the demo's go-shop, all of one executable; one has 50 \
         requests a second, the others are idle. The agent runs with `--name` and `--metric-interval {INTERVAL}`.\nTimes begin at the \
         agent's exec. \"First metric\" is the first line of metrics.jsonl with a metric of a target, after the first interval. \"All \
         watched\" is the log line that reports the last target as watched. Memory (VmRSS) and CPU time are the agent's own at the \
         later of the two. \"End\" is from its SIGINT to its exit. Medians, with minimum and maximum in brackets; ratios are those of \
         the medians, to the first row.\n\n",
        service::machine()
    );
    for wanted in cut {
        let _ = writeln!(
            text,
            "{wanted} targets do not fit into half of the free memory here; what fits was measured.\n"
        );
    }
    text += "![Times by the number of targets](start.svg)\n\n";
    text += "| targets | first metric, s | ratio | all watched, s | ratio | RSS, MiB | ratio | CPU time, s | ratio | end, s | ratio |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    let figures: [fn(&Round) -> f64; 5] = [
        |round| round.first,
        |round| round.all,
        |round| round.used.rss,
        |round| round.used.cpu,
        |round| round.end,
    ];
    for (count, rounds) in rows {
        let _ = write!(text, "| {count} |");
        for figure in figures {
            let of = |rounds: &[Round]| {
                let mut values: Vec<f64> = rounds.iter().map(figure).collect();
                (median(&mut values), values[0], values[values.len() - 1])
            };
            let (middle, least, most) = of(rounds);
            let ratio = middle / of(&rows[0].1).0;
            let _ = write!(text, " {middle:.2} ({least:.2}–{most:.2}) | {ratio:.2} |");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_counts_when_it_is_a_targets() {
        let check = |pid: &str, metrics: &str, expected: bool| {
            let line = format!(
                r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"process.pid","value":{{"intValue":"{pid}"}}}}]}},"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#
            );
            let value = serde_json::from_str(&line).unwrap();
            assert_eq!(of_target(&value, &HashSet::from([7])), expected, "{line}");
        };
        check("7", "{}", true);
        check("7", "", false);
        check("8", "{}", false);
        check("many", "{}", false);
    }
}
