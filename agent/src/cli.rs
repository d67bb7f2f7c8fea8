//! The command line. Every flag of `run` has an environment variable, for the DaemonSet.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use glob::Pattern;

use crate::{
    budget::{Share, parse_share},
    discover::Selector,
};

/// Says where the time of a Go or Rust service goes while nobody works.
#[derive(Debug, Parser)]
#[command(name = "whywait", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch services until Ctrl-C: a live summary here, spans and metrics as OTLP
    Run(Box<RunArgs>),
    /// As `run`, and write every event as the kernel wrote it into a file, for `replay`
    Record(Box<RecordArgs>),
    /// Make of a recording the spans that were made when it was taken; needs no privilege
    Replay(ReplayArgs),
    /// Say what this kernel permits, which processes can be watched, and what would be off and why
    Doctor(TargetArgs),
    /// Load and attach every program to the given processes, and check that events arrive
    Selftest(SelftestArgs),
}

/// Which processes to watch; without any, every Go or tokio process that can be recognised.
#[derive(Debug, Clone, Default, Args)]
pub struct TargetArgs {
    /// Watch this process; may be given more than once
    #[arg(long, value_name = "PID", env = "WHYWAIT_PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Watch processes whose executable matches: its path, or its file name when the glob has no slash
    #[arg(long, value_name = "GLOB", env = "WHYWAIT_EXE", value_delimiter = ',')]
    pub exe: Vec<Pattern>,
    /// Watch processes that the kernel or their executable's file names so; one that takes the name later is found within half a minute
    #[arg(long, value_name = "NAME", env = "WHYWAIT_NAME", value_delimiter = ',')]
    pub name: Vec<String>,
}

/// Where spans and metrics go.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Send OTLP to this endpoint (gRPC, e.g. http://127.0.0.1:4317); the OTEL_EXPORTER_OTLP_* variables are honoured
    #[arg(long, value_name = "URL", env = "WHYWAIT_OTLP")]
    pub otlp: Option<String>,
    /// Write OTLP as JSON lines into this directory; the default when no endpoint is given is ./whywait-out
    #[arg(long, value_name = "DIR", env = "WHYWAIT_OUT")]
    pub out: Option<PathBuf>,
    /// Size at which a file of JSON lines is rotated
    #[arg(long, value_name = "SIZE", env = "WHYWAIT_OUT_ROTATE", default_value = "64MiB", value_parser = parse_size)]
    pub out_rotate: u64,
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    #[command(flatten)]
    pub export: ExportArgs,
    /// Stop after this long
    #[arg(long, value_name = "TIME", env = "WHYWAIT_DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// A goroutine that waits this long from runnable to running becomes a span
    #[arg(long, value_name = "TIME", env = "WHYWAIT_SLOW_WAIT", default_value = "10ms", value_parser = humantime::parse_duration)]
    pub slow_wait: Duration,
    /// A task's poll that takes this long becomes a span
    #[arg(long, value_name = "TIME", env = "WHYWAIT_SLOW_POLL", default_value = "10ms", value_parser = humantime::parse_duration)]
    pub slow_poll: Duration,
    /// A TCP connect or request that takes this long becomes a span
    #[arg(long, value_name = "TIME", env = "WHYWAIT_SLOW_REQUEST", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub slow_request: Duration,
    /// Leave out signals by name, e.g. go.sched (see `whywait doctor` for the names)
    #[arg(long, value_name = "SIGNAL", env = "WHYWAIT_WITHOUT", value_delimiter = ',')]
    pub without: Vec<String>,
    /// Add signals that are left out unless they are asked for: thread.syscall, which makes each system call on the host a
    /// little slower while a window of the hooks is open
    #[arg(long, value_name = "SIGNAL", env = "WHYWAIT_WITH", value_delimiter = ',')]
    pub with: Vec<String>,
    /// What watching may cost each target, as a share of its CPU time: within it the dear probes (of goroutines and tasks)
    /// come and go; `off` keeps them in place whatever they cost
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET", default_value = "1%", value_parser = parse_share)]
    pub budget: Share,
    /// What a target may cost in any case, as a share of one core: it lets quiet services be seen all the time
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET_FLOOR", default_value = "0.1%", value_parser = parse_share)]
    pub budget_floor: Share,
    /// How much longer windows may make the 99th percentile of a service's latency, by a model of its queue: where cores are
    /// busy they are rarer than the budget would pay for; `off` for as many as it pays for
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET_P99", default_value = "2%", value_parser = parse_share)]
    pub budget_p99: Share,
    /// What watching may cost all targets together, as a share of the host's CPU time
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET_HOST", default_value = "off", value_parser = parse_share)]
    pub budget_host: Share,
    /// What the agent may use for itself, as a share of one core, or what its cgroup leaves of it: over that it gives up spans,
    /// then windows, then new targets, and says so
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_LIMIT_CPU", default_value = "5%", value_parser = parse_share)]
    pub limit_cpu: Share,
    /// Memory that the agent may use, likewise
    #[arg(long, value_name = "SIZE", env = "WHYWAIT_LIMIT_MEMORY", default_value = "64MiB", value_parser = parse_size)]
    pub limit_memory: u64,
    /// How often metrics leave
    #[arg(long, value_name = "TIME", env = "WHYWAIT_METRIC_INTERVAL", default_value = "10s", value_parser = humantime::parse_duration)]
    pub metric_interval: Duration,
    /// Most spans of a target in a second, a tenth of them of GC cycles, and of those the longest pauses in any case; what is over
    /// is counted, and metrics are whole all the same
    #[arg(long, value_name = "N", env = "WHYWAIT_MAX_SPANS", default_value_t = 1000)]
    pub max_spans: usize,
    /// Serve /livez and /readyz here
    #[arg(long, value_name = "ADDR", env = "WHYWAIT_HEALTH_LISTEN")]
    pub health_listen: Option<SocketAddr>,
    /// Size of the kernel's event buffer, a power of two
    #[arg(long, value_name = "SIZE", env = "WHYWAIT_RING", default_value = "1MiB", value_parser = parse_ring)]
    pub ring: u32,
    /// Print plain lines even on a terminal
    #[arg(long, env = "WHYWAIT_PLAIN")]
    pub plain: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RecordArgs {
    /// The recording; a file that is there already is not written over
    pub file: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// What `whywait record` wrote
    pub file: PathBuf,
    #[command(flatten)]
    pub export: ExportArgs,
}

#[derive(Debug, Clone, Args)]
pub struct SelftestArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    /// How long to wait for events
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

impl TargetArgs {
    /// The stage's form of it.
    pub fn selector(&self) -> Selector {
        Selector {
            pids: self.pid.clone(),
            exes: self.exe.clone(),
            names: self.name.clone(),
        }
    }
}

/// "64MiB", "1000000".
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text}: not a size; write e.g. 64MiB"))?;
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("{text}: unknown unit {other}; use KiB, MiB or GiB")),
    };
    number
        .checked_mul(unit)
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("{text}: out of range"))
}

fn parse_ring(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    if !size.is_power_of_two() || !(4096..=1 << 30).contains(&size) {
        return Err(format!("{text}: must be a power of two between 4KiB and 1GiB"));
    }
    Ok(size as u32)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert!(parse_size("12parsec").is_err());
        assert!(parse_size("0").is_err());
        assert!(parse_size("99999999999GiB").is_err());
        assert_eq!(parse_ring("1MiB"), Ok(1 << 20));
        assert!(parse_ring("3MiB").is_err());
    }
}
