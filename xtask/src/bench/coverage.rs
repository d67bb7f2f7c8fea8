//! How much of what happens is seen under the default budget: requests counted by the agent beside those that were sent, goroutine switches beside
//! the runtime's own count, at several rates.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use super::{
    plot::{self, Chart, Curve},
    service::{self, Window, used},
};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Length of each load, s
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..))]
    seconds: u32,
    /// Only services with this in their name
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
    /// Measure the agent and the services as they are built
    #[arg(long)]
    as_built: bool,
    /// Arguments of the agent besides the target, e.g. `-- --budget 5%`
    #[arg(last = true)]
    agent: Vec<String>,
}

/// A service, what is requested of it, and the rates, requests a second; 0 for a closed loop.
type Case = (&'static str, &'static str, [f64; 4]);

const CASES: [Case; 2] = [
    ("go-shop", "/item?id={n}", [100.0, 1000.0, 5000.0, 0.0]),
    ("rust-stock", "/stock/{n}", [100.0, 1000.0, 10_000.0, 0.0]),
];
const CONNECTIONS: u32 = 4;
/// The planes that may have windows.
const PLANES: [&str; 4] = ["sockets", "sample", "threads", "probes"];
/// The default of --budget and --budget-floor.
const BUDGET: f64 = 0.01;

/// One load.
struct Row {
    service: &'static str,
    rate: f64,
    window: Window,
    seen: Seen,
    /// CPU time of the service, s.
    cpu: f64,
    seconds: f64,
}

/// What the agent's last metrics say.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: u64,
    p50: f64,
    p99: f64,
    /// Share of the time, by plane, in the order of [`PLANES`].
    open: [f64; 4],
    /// CPU time that observing cost, s.
    cost: f64,
    latency_ratio: Option<f64>,
    go: Option<Switches>,
    polls: u64,
}

/// Starts of goroutines.
#[derive(Debug, Default, PartialEq)]
struct Switches {
    /// As the runtime counts them, one in eight, since the process began.
    own: u64,
    /// By the probe of that sample, and those of them that were runnable.
    sampled: u64,
    runnable: u64,
    /// By the probes of go.sched.
    followed: u64,
}

pub(super) fn run(options: Options) -> Result<()> {
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    let (agent, demo) = service::programs(options.as_built)?;
    let folder = sh::target().join("xtask/bench-coverage");
    let args: Vec<&str> = options.agent.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    for (name, path, rates) in CASES.iter().filter(|(name, ..)| name.contains(&options.service)) {
        for rate in rates {
            let row = row(&agent, &demo, &folder, (name, path, *rate), options.seconds, &args)?;
            progress::note(&line(&row));
            rows.push(row);
        }
    }
    if rows.is_empty() {
        bail!("--service {}: no service has this in its name", options.service);
    }
    let text = report(&rows, &options);
    if !options.agent.is_empty() || !options.service.is_empty() {
        println!("{text}");
        return Ok(());
    }
    service::keep("coverage.svg", &picture(&rows)?)?;
    service::publish("coverage.md", &text)
}

/// Starts a service and the agent, loads it, and ends both.
fn row(
    agent: &Path,
    demo: &Path,
    folder: &Path,
    (name, path, rate): (&'static str, &str, f64),
    seconds: u32,
    args: &[&str],
) -> Result<Row> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let (service, address) = service::service(demo, name, &[])?;
    let out = folder.join("out");
    let watching = service::agent(agent, &[service.pid()], args, &out)?;
    let before = used(service.pid())?.cpu;
    let url = format!("http://{address}{path}");
    let window = service::window(demo, service.pid(), &url, (rate, CONNECTIONS), seconds)?;
    let cpu = used(service.pid())?.cpu - before;
    // The last answers' programs.
    thread::sleep(Duration::from_millis(500));
    watching.end()?;
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).context("the agent's metrics")?;
    let seen = seen(&text, service.pid())?;
    let took = window.ended.duration_since(window.began)?;
    Ok(Row {
        service: name,
        rate,
        window,
        seen,
        cpu,
        seconds: took.as_secs_f64(),
    })
}

/// The last figures of a process.
fn seen(text: &str, pid: u32) -> Result<Seen> {
    let mut last: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("a line of the agent's metrics")?;
        for resource in list(&line["resourceMetrics"]).filter(|of| is(of, pid)) {
            for scope in list(&resource["scopeMetrics"]) {
                for metric in list(&scope["metrics"]) {
                    let data = ["sum", "gauge", "histogram", "exponentialHistogram"]
                        .iter()
                        .find_map(|kind| metric[*kind]["dataPoints"].as_array());
                    let name = metric["name"].as_str().unwrap_or_default();
                    last.insert(name.to_owned(), data.cloned().unwrap_or_default());
                }
            }
        }
    }
    if last.is_empty() {
        bail!("the agent's metrics say nothing of process {pid}");
    }
    let points = |name: &str| last.get(name).map_or(&[][..], Vec::as_slice);
    let sum = |name: &str, key: &str| points(name).iter().map(|point| number(&point[key])).sum::<u64>();
    let requests = points("whywait.server.request.duration");
    let of_plane = |name: &str, plane: &str| {
        let of = points(name).iter().find(|point| has(point, "whywait.plane", plane));
        of.map(|point| number(&point["asInt"]) as f64)
    };
    let open = PLANES.map(|plane| {
        let both = of_plane("whywait.window.open", plane).zip(of_plane("whywait.window.time", plane));
        both.map_or(1.0, |(open, time)| open / time.max(1.0))
    });
    let own = sum("go.schedule.duration", "count");
    let runnable = sum("go.goroutine.latency.duration", "count");
    Ok(Seen {
        requests: sum("whywait.server.request.duration", "count"),
        p50: quantile(requests, 0.5),
        p99: quantile(requests, 0.99),
        open,
        cost: sum("whywait.overhead.cpu.time", "asInt") as f64 / 1e9,
        latency_ratio: points("whywait.overhead.latency.ratio")
            .iter()
            .find_map(|point| point["asDouble"].as_f64()),
        go: (own > 0).then(|| Switches {
            own: 8 * own,
            sampled: runnable + sum("go.goroutine.resumed", "asInt"),
            runnable,
            followed: sum("go.goroutine.runnable.duration", "count"),
        }),
        polls: sum("tokio.task.poll.duration", "count"),
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is(resource: &Value, pid: u32) -> bool {
    list(&resource["resource"]["attributes"])
        .any(|attribute| attribute["key"] == "process.pid" && attribute["value"]["intValue"] == *pid.to_string())
}

fn has(point: &Value, key: &str, value: &str) -> bool {
    list(&point["attributes"]).any(|attribute| attribute["key"] == key && attribute["value"]["stringValue"] == *value)
}

/// OTLP's JSON writes 64 bits as text.
fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| value.as_u64()).unwrap_or_default()
}

/// A quantile of exponential histograms together, s: the middle of its bucket.
fn quantile(points: &[Value], q: f64) -> f64 {
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    let mut scale = 0;
    for point in points {
        scale = point["scale"].as_i64().unwrap_or_default();
        let offset = point["positive"]["offset"].as_i64().unwrap_or_default();
        for (at, count) in (offset..).zip(list(&point["positive"]["bucketCounts"])) {
            *counts.entry(at).or_default() += number(count);
        }
    }
    let mut left = q * counts.values().sum::<u64>() as f64;
    let width = (-(scale as f64)).exp2();
    let found = counts.iter().find(|(_, count)| {
        left -= **count as f64;
        left <= 0.0
    });
    found.map_or(0.0, |(at, _)| ((*at as f64 + 0.5) * width).exp2())
}

impl Row {
    fn counted(&self) -> f64 {
        self.seen.requests as f64 / self.window.requests
    }

    /// What the default budget allows, s.
    fn allowed(&self) -> f64 {
        BUDGET * (self.cpu - self.seen.cost).max(self.seconds)
    }

    fn rate(&self) -> String {
        if self.rate > 0.0 {
            format!("{:.0}/s", self.rate)
        } else {
            format!("closed loop, {:.0}/s", self.window.per_second)
        }
    }
}

fn line(row: &Row) -> String {
    format!(
        "{} {}: {} of {:.0} requests counted",
        row.service,
        row.rate(),
        row.seen.requests,
        row.window.requests
    )
}

fn report(rows: &[Row], options: &Options) -> String {
    let mut text = format!(
        "# What is seen under the budget\n\
         `cargo xtask bench coverage`: a service of the demo and the agent on it{}, {} s of load over {CONNECTIONS} connections; {}. Counts are what the agent exported\n\
         last. \"Cost\" is the agent's own account, beside 1 % of the service's CPU time or of a core, whichever is more.\n\n\
         | service | load | requests counted / sent | p50, p99 by the agent | by the load generator | sockets, sample, threads, probes on | cost / allowed | p99 inside / outside windows |\n\
         |---|---|---|---|---|---|---|---|\n",
        if options.agent.is_empty() {
            ", with its default flags".to_owned()
        } else {
            format!(", with `{}`", options.agent.join(" "))
        },
        options.seconds,
        service::machine()
    );
    for row in rows {
        let Seen {
            requests,
            p50,
            p99,
            open,
            ..
        } = &row.seen;
        let open: Vec<String> = open.iter().map(|share| format!("{:.1} %", 100.0 * share)).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {requests} / {:.0} = {:.3} | {}, {} | {}, {} | {} | {:.2} | {} |",
            row.service,
            row.rate(),
            row.window.requests,
            row.counted(),
            micros(*p50),
            micros(*p99),
            micros(row.window.p50 / 1e9),
            micros(row.window.p99 / 1e9),
            open.join(", "),
            row.seen.cost / row.allowed(),
            row.seen
                .latency_ratio
                .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        );
    }
    text += "\n![counted / sent by rate](coverage.svg)\n\n\
        The load generator's latency has the network and both sides' system calls in it; the agent's is from the request's read to the answer's send.\n\n\
        ## Goroutine switches and polls\n\
        | service | load | by the runtime | its sample as counted | by the probes of go.sched | polls a request |\n|---|---|---|---|---|---|\n";
    for row in rows {
        let (own, sampled, followed) = row.seen.go.as_ref().map_or_else(Default::default, |switches| {
            let Switches {
                own,
                sampled,
                runnable,
                followed,
            } = switches;
            (
                own.to_string(),
                format!("{sampled} = {:.3}", *sampled as f64 / *own as f64),
                format!(
                    "{followed} = {:.3} of those runnable",
                    *followed as f64 / (*runnable).max(1) as f64
                ),
            )
        });
        let polls = row.seen.polls as f64 / row.window.requests;
        let polls = if row.seen.polls > 0 {
            format!("{polls:.3}")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "| {} | {} | {own} | {sampled} | {followed} | {polls} |",
            row.service,
            row.rate()
        );
    }
    text
}

fn micros(seconds: f64) -> String {
    format!("{:.0} µs", seconds * 1e6)
}

fn picture(rows: &[Row]) -> Result<String> {
    let curve = |(name, ..): &Case| {
        let of = rows.iter().filter(|row| row.service == *name);
        Curve::line(name, of.map(|row| (row.window.per_second, row.counted())))
    };
    plot::chart_of(&Chart {
        title: "Requests counted / sent",
        x: "requests a second",
        y: "counted / sent",
        curves: CASES.iter().map(curve).collect(),
        bar: Some(1.0),
        logarithmic: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_figures_of_a_process_count() {
        let line = |pid: u32, count: u32, open: u32| {
            format!(
                r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"process.pid","value":{{"intValue":"{pid}"}}}}]}},"scopeMetrics":[{{"metrics":[
                {{"name":"whywait.server.request.duration","exponentialHistogram":{{"dataPoints":[{{"count":"{count}","scale":0,"positive":{{"offset":-1,"bucketCounts":["{count}"]}}}}]}}}},
                {{"name":"whywait.window.open","sum":{{"dataPoints":[{{"asInt":"{open}","attributes":[{{"key":"whywait.plane","value":{{"stringValue":"probes"}}}}]}}]}}}},
                {{"name":"whywait.window.time","sum":{{"dataPoints":[{{"asInt":"100","attributes":[{{"key":"whywait.plane","value":{{"stringValue":"probes"}}}}]}}]}}}}]}}]}}]}}"#
            )
            .replace('\n', "")
        };
        let text = [line(7, 10, 1), line(8, 999, 99), line(7, 20, 5)].join("\n");
        let found = seen(&text, 7).unwrap();
        assert_eq!((found.requests, found.open), (20, [1.0, 1.0, 1.0, 0.05]));
        assert!((found.p50 - 0.5_f64.sqrt()).abs() < 1e-9, "{}", found.p50);
        assert_eq!((found.go, found.polls), (None, 0));
        assert!(seen(&text, 9).is_err());
    }
}
