//! load: an open-loop load generator. Requests are due at fixed times whether or not earlier ones were answered, and
//! latency counts from the due time, so a stall of the service shows in full.
//!
//! One thread a connection with blocking I/O, on purpose: a timer without a runtime's rounding, few system calls a
//! request, and no tokio in it, which the agent would take for a service to watch.

mod connection;
mod mix;
mod report;
mod worker;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long requests in flight at the end may take to be answered and counted.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(version, about = "Fixed-rate open-loop HTTP load, with latencies from the due time")]
struct Options {
    /// What to ask for; {n} becomes a key, WEIGHT its share of the requests. May be given several times.
    #[arg(long = "url", value_name = "[WEIGHT:]URL", required = true)]
    urls: Vec<mix::Request>,
    /// Requests a second over all connections; 0 asks again as soon as an answer is there.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    /// How long: 10s, 500ms, 2m; 0s goes on until SIGINT or SIGTERM.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Connections, kept alive, and so the most requests that are in flight at once.
    #[arg(long, default_value = "8")]
    connections: NonZeroUsize,
    /// How many different keys {n} takes: 0 to KEYS - 1, at random.
    #[arg(long, default_value = "1000")]
    keys: std::num::NonZeroU64,
    /// How long to wait for an answer before it counts as an error.
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Where to write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    if options.timeout.is_zero() {
        bail!("--timeout 0s leaves no time for an answer");
    }
    for request in &options.urls {
        request.check(options.timeout)?;
    }
    // From here on a signal ends the run with a summary; a second one is harmless, as the end takes at most GRACE.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("handling signals")?;
    }

    let plan = worker::Plan {
        mix: mix::Mix::new(options.urls, options.keys.get()),
        rate: options.rate,
        duration: options.duration,
        timeout: options.timeout,
    };
    let workers = worker::start(Arc::new(plan), Arc::clone(&stop), options.connections.get())?;
    let elapsed = wait(&workers, options.duration, &stop);
    stop.store(true, Ordering::Relaxed);
    let ended = Instant::now();
    while ended.elapsed() < GRACE && !workers.finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let report = report::Report::new(&workers.tally()?, options.rate, elapsed);
    print!("{report}");
    if let Some(path) = &options.json {
        let json = serde_json::to_vec(&report).context("writing the results as JSON")?;
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    if report.all_failed() {
        bail!("no request succeeded: {}", report.errors());
    }
    Ok(())
}

/// Returns when the time is up or a signal has come; how long it really was.
fn wait(workers: &worker::Workers, duration: Duration, stop: &AtomicBool) -> Duration {
    let start = workers.start;
    while !stop.load(Ordering::Relaxed) && (duration.is_zero() || start.elapsed() < duration) {
        let left = if duration.is_zero() {
            Duration::MAX
        } else {
            duration.saturating_sub(start.elapsed())
        };
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    let elapsed = start.elapsed();
    // Requests are due until the end asked for, not until we noticed it.
    if duration.is_zero() {
        elapsed
    } else {
        elapsed.min(duration)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("wants requests a second, such as 200, or 0 for as fast as they are answered".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let help = || "wants a time such as 10s, 500ms or 2m".to_string();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(help)?;
    let number: u64 = text[..digits].parse().map_err(|_| help())?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(help),
        _ => Err(help()),
    }
}
