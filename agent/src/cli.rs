//! The command line. Every flag of `run` has an environment variable, for the DaemonSet.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use glob::Pattern;

use crate::{
    budget::{Share, parse_share},
    discover::Selector,
    intake::kernel_log::KernelLog,
};

/// Where more is said of the flags than a line.
const DETAILS: &str = "docs/flags.md explains the flags and the OTEL_* variables.";

/// Shows where a running Go or Rust service loses time while it waits
#[derive(Debug, Parser)]
#[command(name = "whywait", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch services until Ctrl-C: print a live summary, export spans and metrics as OTLP
    Run(Box<RunArgs>),
    /// Do what `run` does, and write every kernel event to a file for `replay`
    Record(Box<RecordArgs>),
    /// Make the spans of a recording again; needs no privilege
    Replay(ReplayArgs),
    /// Print what this kernel permits, which processes can be watched, which signals are off and why
    Doctor(DoctorArgs),
    /// Attach every program to the given processes and check that events arrive
    Selftest(SelftestArgs),
    /// Print the stacks of all goroutines of a Go process, which is not stopped
    Goroutines(GoroutinesArgs),
    /// Sample where the goroutines of a Go process wait, and write a pprof file and a flame graph
    Profile(ProfileArgs),
}

impl Command {
    /// Which messages of the eBPF programs are wanted.
    pub fn kernel_log(&self) -> KernelLog {
        match self {
            Self::Run(args) => args.kernel_log,
            Self::Record(args) => args.run.kernel_log,
            _ => KernelLog::Off,
        }
    }
}

/// Which processes to watch; without any, every Go or tokio process that can be recognised.
#[derive(Debug, Clone, Default, Args)]
pub struct TargetArgs {
    /// Watch this process; can be repeated
    #[arg(long, value_name = "PID", env = "WHYWAIT_PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Watch processes whose executable matches: its path, or its file name for a glob without a slash
    #[arg(long, value_name = "GLOB", env = "WHYWAIT_EXE", value_delimiter = ',')]
    pub exe: Vec<Pattern>,
    /// Watch processes with this name in /proc/PID/comm, or with this executable file name
    #[arg(long, value_name = "NAME", env = "WHYWAIT_NAME", value_delimiter = ',')]
    pub name: Vec<String>,
}

/// Where spans and metrics go.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Send OTLP to this endpoint, e.g. http://127.0.0.1:4317; gRPC by default
    #[arg(long, value_name = "URL", env = "WHYWAIT_OTLP")]
    pub otlp: Option<String>,
    /// Write OTLP as JSON lines to this directory; ./whywait-out if there is no endpoint
    #[arg(long, value_name = "DIR", env = "WHYWAIT_OUT")]
    pub out: Option<PathBuf>,
    /// Rotate a file of JSON lines at this size
    #[arg(long, value_name = "SIZE", env = "WHYWAIT_OUT_ROTATE", default_value = "64MiB", value_parser = parse_size)]
    pub out_rotate: u64,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = DETAILS)]
pub struct RunArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    #[command(flatten)]
    pub export: ExportArgs,
    /// Stop after this time
    #[arg(long, value_name = "TIME", env = "WHYWAIT_DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Make a span of a goroutine's wait, or of a system call, that takes this long
    #[arg(long, value_name = "TIME", env = "WHYWAIT_SLOW_WAIT", default_value = "10ms", value_parser = humantime::parse_duration)]
    pub slow_wait: Duration,
    /// Make a span of a task's poll that takes this long
    #[arg(long, value_name = "TIME", env = "WHYWAIT_SLOW_POLL", default_value = "10ms", value_parser = humantime::parse_duration)]
    pub slow_poll: Duration,
    /// Make a span of a TCP connect or a request that takes this long
    #[arg(long, value_name = "TIME", env = "WHYWAIT_SLOW_REQUEST", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub slow_request: Duration,
    /// Leave out this signal, e.g. go.sched; `whywait doctor` prints all names
    #[arg(long, value_name = "SIGNAL", env = "WHYWAIT_WITHOUT", value_delimiter = ',')]
    pub without: Vec<String>,
    /// Add this signal, which is off by default: thread.syscall
    #[arg(long, value_name = "SIGNAL", env = "WHYWAIT_WITH", value_delimiter = ',')]
    pub with: Vec<String>,
    /// Limit the cost for each target to this share of its CPU time; `off` for no limit
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET", default_value = "1%", value_parser = parse_share)]
    pub budget: Share,
    /// Always allow this cost for each target, as a share of one core, or of its CPU quota if that is less
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET_FLOOR", default_value = "1%", value_parser = parse_share)]
    pub budget_floor: Share,
    /// Limit how much windows may lengthen a service's 99th percentile of latency; `off` for no limit
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET_P99", default_value = "2%", value_parser = parse_share)]
    pub budget_p99: Share,
    /// Limit the cost for all targets together to this share of the host's CPU time
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_BUDGET_HOST", default_value = "2%", value_parser = parse_share)]
    pub budget_host: Share,
    /// Limit the agent's own CPU time to this share of one core
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_LIMIT_CPU", default_value = "5%", value_parser = parse_share)]
    pub limit_cpu: Share,
    /// Limit the agent's own memory
    #[arg(long, value_name = "SIZE", env = "WHYWAIT_LIMIT_MEMORY", default_value = "64MiB", value_parser = parse_size)]
    pub limit_memory: u64,
    /// Export metrics at this interval
    #[arg(long, value_name = "TIME", env = "WHYWAIT_METRIC_INTERVAL", default_value = "10s", value_parser = humantime::parse_duration)]
    pub metric_interval: Duration,
    /// Limit the spans of each target per second; metrics are not affected
    #[arg(long, value_name = "N", env = "WHYWAIT_MAX_SPANS", default_value_t = 1000)]
    pub max_spans: usize,
    /// Serve /livez and /readyz on this address
    #[arg(long, value_name = "ADDR", env = "WHYWAIT_HEALTH_LISTEN")]
    pub health_listen: Option<SocketAddr>,
    /// Size of the BPF ring buffer for events, a power of two
    #[arg(long, value_name = "SIZE", env = "WHYWAIT_RING", default_value = "1MiB", value_parser = parse_ring)]
    pub ring: u32,
    /// Log messages of the eBPF programs too
    #[arg(long, value_name = "LEVEL", env = "WHYWAIT_KERNEL_LOG", value_enum, default_value_t = KernelLog::Off)]
    pub kernel_log: KernelLog,
    /// Print plain lines on a terminal too
    #[arg(long, env = "WHYWAIT_PLAIN")]
    pub plain: bool,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = DETAILS)]
pub struct RecordArgs {
    /// File to write; an existing file is not overwritten
    pub file: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// File that `whywait record` wrote
    pub file: PathBuf,
    #[command(flatten)]
    pub export: ExportArgs,
}

#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Look for findings in each process of --pid for this time, without probes; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub look: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct SelftestArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    /// How long to wait for events
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct GoroutinesArgs {
    /// Process whose goroutines are printed
    #[arg(long, value_name = "PID", env = "WHYWAIT_PID")]
    pub pid: u32,
    /// Print each stack once, with how many goroutines have it, most first
    #[arg(long)]
    pub grouped: bool,
    /// Print the runtime's own goroutines and frames too
    #[arg(long)]
    pub system: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ProfileArgs {
    /// Process whose goroutines are sampled
    #[arg(long, value_name = "PID", env = "WHYWAIT_PID")]
    pub pid: u32,
    /// How long to sample
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Write the profile to this file, and a flame graph beside it, with the ending .svg
    #[arg(long, value_name = "FILE", default_value = "whywait.pb.gz")]
    pub out: PathBuf,
    /// Send the profile to this OTLP endpoint too; the signal is experimental
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Look at most so many times a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Sample code on CPU so many times a second on each core; 0 for not at all
    #[arg(long, value_name = "N", default_value_t = 29, value_parser = clap::value_parser!(u32).range(0..=999))]
    pub cpu_rate: u32,
    /// Limit the agent's own CPU time to this share of one core
    #[arg(long, value_name = "SHARE", env = "WHYWAIT_LIMIT_CPU", default_value = "5%", value_parser = parse_share)]
    pub limit_cpu: Share,
    /// Sample the runtime's own goroutines too
    #[arg(long)]
    pub system: bool,
}

impl TargetArgs {
    /// The stage's form of it.
    pub fn selector(&self) -> Selector {
        Selector {
            pids: self.pid.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
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
    fn help_is_one_short_line_each() {
        let whywait = Cli::command();
        for command in whywait.get_subcommands() {
            let flags = command.get_arguments().filter(|arg| arg.get_id() != "help");
            let of_flags = flags.map(|arg| (arg.get_id().as_str(), arg.get_help(), arg.get_long_help()));
            let own = (command.get_name(), command.get_about(), command.get_long_about());
            for (name, short, long) in of_flags.chain([own]) {
                let text = short.unwrap_or_else(|| panic!("{name} has no help")).to_string();
                let is_long = text.contains('\n') || text.chars().count() >= 100;
                assert!(!is_long && long.is_none(), "help of {name} is long: {text}");
            }
        }
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
