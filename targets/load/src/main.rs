//! load sends HTTP requests at a fixed rate whatever the answers take (open loop) and records latencies
//! from the moment a request was due and from the moment it was sent.
//!
//! One thread a connection, with blocking sockets: a wake-up through an async runtime's timer (1 ms) and
//! queues would stand in every latency, and a load generator on tokio would be one more target to the agent.

mod clock;
mod connection;
mod plan;
mod report;
mod sender;
mod target;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;

use crate::{plan::Plan, target::Target};

/// Fixed-rate, open-loop HTTP load with latencies free of coordinated omission.
#[derive(Parser)]
struct Options {
    /// What to request; {n} becomes a counter. Repeat for a mix, with weights as in 9:http://…
    #[arg(long = "url", required = true, value_name = "[WEIGHT:]URL")]
    targets: Vec<Target>,
    /// Requests a second in all; 0: as many as the connections carry (then not an open loop)
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// How long, as 10s, 500ms or 2m; 0: until SIGINT or SIGTERM
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Keep-alive connections, a thread each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// {n} counts from 0 to this, then begins again
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// A request without an answer after this long is an error
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Write the results as JSON to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!options.timeout.is_zero(), "--timeout: must be longer than 0");
    // Found out now rather than after the measurement.
    let json = options.json.as_ref().map(|path| {
        let file = std::fs::File::create(path);
        file.with_context(|| format!("--json {}", path.display()))
    });
    let json = json.transpose()?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("handling signals")?;
    }
    let plan = Plan::new(options.targets, options.keys, options.rate, options.duration);
    let run = sender::run(&plan, options.connections, options.timeout, &stop)?;
    let report = report::Report::new(&plan, &run);
    print!("{report}");
    if let Some(file) = json {
        report.write_json(file).context("writing the JSON results")?;
    }
    let interrupted = stop.load(Ordering::Relaxed);
    if run.answered() == 0 && !interrupted {
        anyhow::bail!("no request was answered");
    }
    Ok(ExitCode::SUCCESS)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.0..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number of requests a second is needed, such as 200".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration such as 10s, 500ms or 2m is needed".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "" if number == 0.0 => 0.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, expected| assert_eq!(duration(text).ok(), expected, "{text:?}");
        check("10s", Some(Duration::from_secs(10)));
        check("500ms", Some(Duration::from_millis(500)));
        check("1.5m", Some(Duration::from_secs(90)));
        check("0", Some(Duration::ZERO));
        check("10", None);
        check("s", None);
        check("-1s", None);
        check("5 parsecs", None);
    }
}
