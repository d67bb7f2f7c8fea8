//! The services under load and the agent beside them: children that are ended by their own pids on every way out.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{build, demo, demo_build, progress, setup, sh};

const START_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(5);

/// A running program.
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Starts `command` and waits until `found` has seen `wanted` lines; gives what it made of the last.
    pub(super) fn start(
        mut command: Command,
        wanted: usize,
        found: impl Fn(&str) -> Option<String> + Send + 'static + Clone,
    ) -> Result<(Self, String)> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call (prctl) and touches no memory of ours.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", sh::show(&command)))?;
        let mut running = Self { child };
        let (send, receive) = mpsc::channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            running.child.stdout.take().map(|out| Box::new(out) as _),
            running.child.stderr.take().map(|out| Box::new(out) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let (send, found) = (send.clone(), found.clone());
            // Reads on to the end, so that the program never blocks on a full pipe.
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(found) = found(&line) {
                        send.send(found).ok();
                    }
                }
            });
        }
        drop(send);
        let mut last = String::new();
        for _ in 0..wanted {
            last = receive
                .recv_timeout(START_LIMIT)
                .with_context(|| format!("{} did not say that it is ready", sh::show(&command)))?;
        }
        Ok((running, last))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has.
    pub(super) fn end(self) -> Result<()> {
        demo::signal(&self.child, Signal::INT)?;
        self.wait()
    }

    /// Waits until it ends by itself, as it should.
    pub(super) fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Starts a service of the demo: itself, and its address.
pub(super) fn service(folder: &Path, name: &str, args: &[&str]) -> Result<(Running, String)> {
    let mut command = Command::new(folder.join(name));
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    Running::start(command, 1, |line| {
        line.strip_prefix("listening on ")
            .map(|address| address.trim().to_owned())
    })
}

/// Starts the agent on `pids`; it watches all of them.
pub(super) fn agent(program: &Path, pids: &[u32], args: &[&str], out: &Path) -> Result<Running> {
    agent_heard(program, pids, args, out, |_| {})
}

/// The same, and `hear` gets each line that it prints.
pub(super) fn agent_heard(
    program: &Path,
    pids: &[u32],
    args: &[&str],
    out: &Path,
    hear: impl Fn(&str) + Send + 'static + Clone,
) -> Result<Running> {
    let mut command = Command::new(program);
    command.arg("run");
    watching(command, pids, args, out, hear)
}

/// The same, and all events go into `file` as well.
pub(super) fn recorder(program: &Path, file: &Path, pids: &[u32], args: &[&str], out: &Path) -> Result<Running> {
    let mut command = Command::new(program);
    command.arg("record").arg(file);
    watching(command, pids, args, out, |_| {})
}

fn watching(
    mut command: Command,
    pids: &[u32],
    args: &[&str],
    out: &Path,
    hear: impl Fn(&str) + Send + 'static + Clone,
) -> Result<Running> {
    command.args(["--plain", "--out"]).arg(out);
    for pid in pids {
        command.args(["--pid", &pid.to_string()]);
    }
    command.args(args);
    command.env("RUST_LOG", "info");
    let (running, _) = Running::start(command, pids.len(), move |line| {
        hear(line);
        line.contains(" watching ").then(|| line.to_owned())
    })?;
    Ok(running)
}

/// What one window of load showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// By the wall clock, as the agent's points are.
    pub(super) began: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) requests: f64,
    pub(super) per_second: f64,
    /// Of the service, ns per request.
    pub(super) cpu: f64,
    /// From a request's sending to its answer's first byte, ns.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

/// What the load generator says at its end.
#[derive(Deserialize)]
pub(super) struct Report {
    count: u64,
    errors: u64,
    pub(super) achieved_rate: f64,
    from_sent: Latency,
}

#[derive(Deserialize)]
struct Latency {
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: f64,
}

impl Report {
    /// Reads it; an error when there was no answer, or a wrong one.
    pub(super) fn read(json: &Path, of: &str) -> Result<Self> {
        let text = std::fs::read(json).with_context(|| format!("cannot read {}", json.display()))?;
        let report: Self = serde_json::from_slice(&text)?;
        if report.count == 0 || report.errors > 0 {
            bail!("{of}: {} answers, {} errors", report.count, report.errors);
        }
        Ok(report)
    }
}

/// The load generator: `url` for `seconds` (0: until it is ended) at a rate (0: as fast as the connections carry) over so many
/// connections.
pub(super) fn load(folder: &Path, url: &str, (rate, connections): (f64, u32), seconds: u64) -> Command {
    let mut load = Command::new(folder.join("load"));
    load.args(["--url", url, "--rate", &rate.to_string()]);
    load.args(["--duration", &format!("{seconds}s")]);
    load.args(["--connections", &connections.to_string()]);
    load
}

/// Loads `url` for `seconds` at a rate (0: as fast as the connections carry) over so many connections, and measures the
/// process behind it.
pub(super) fn window(
    folder: &Path,
    pid: u32,
    url: &str,
    rate_and_connections: (f64, u32),
    seconds: u32,
) -> Result<Window> {
    let json = sh::target().join("xtask/bench-load.json");
    let mut load = load(folder, url, rate_and_connections, seconds.into());
    load.arg("--json").arg(&json);
    std::fs::create_dir_all(sh::target().join("xtask"))?;
    let (began, before) = (SystemTime::now(), cpu(pid)?);
    sh::capture(&mut load)?;
    let (ended, after) = (SystemTime::now(), cpu(pid)?);
    let report = Report::read(&json, url)?;
    Ok(Window {
        began,
        ended,
        requests: report.count as f64,
        per_second: report.achieved_rate,
        cpu: (after - before) as f64 / report.count as f64,
        p50: report.from_sent.p50_ns,
        p99: report.from_sent.p99_ns,
        p999: report.from_sent.p999_ns,
    })
}

/// CPU time of a process so far, ns: the sum of its threads', as the scheduler counts it. Threads of the demo services stay.
fn cpu(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran = text.split(' ').next().unwrap_or_default();
        sum += ran.parse::<u64>().with_context(|| format!("schedstat says {text:?}"))?;
    }
    Ok(sum)
}

/// Builds the agent and the demo services, or takes them `as_built`: the agent, and the services' folder.
pub(super) fn programs(as_built: bool) -> Result<(PathBuf, PathBuf)> {
    if as_built {
        return Ok((sh::target().join("release/whywait"), demo_build::folder()));
    }
    let tools = setup::ensure(setup::Wanted::default())?;
    Ok((build::agent()?, demo_build::all(&tools)?))
}

/// The machine, for the head of a report.
pub(super) fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = kernel.trim().split(['.', '-']).take(2).collect();
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let place = match processor.contains(" hypervisor") {
        true => "a virtual machine",
        false => "no virtual machine",
    };
    format!("Linux {}, {cores} cores, {place}", kernel.join("."))
}

/// Shows a report and writes it below docs/bench.
pub(super) fn publish(name: &str, text: &str) -> Result<()> {
    println!("{text}");
    keep(name, text)
}

/// Writes a report, or its picture, below docs/bench.
pub(super) fn keep(name: &str, text: &str) -> Result<()> {
    let folder = sh::root().join("docs/bench");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), text)?;
    progress::note(&format!("wrote docs/bench/{name}"));
    Ok(())
}

/// What a process has used up to now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// Of all its threads, ended ones too, s. In steps of 10 ms.
    pub(super) cpu: f64,
    /// Memory in use, MiB.
    pub(super) rss: f64,
}

pub(super) fn used(pid: u32) -> Result<Used> {
    /// The unit of times in /proc on x86-64: USER_HZ, include/asm-generic/param.h.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before the last bracket may hold spaces; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).flat_map(str::parse::<f64>).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(Used {
        cpu: ticks / TICKS_A_SECOND,
        rss: rss.with_context(|| format!("process {pid} has ended"))? / 1024.0,
    })
}

impl Running {
    /// Asks a program that is not ours to end, whatever status it ends with, and kills it when it takes too long.
    pub(super) fn dismiss(mut self) -> Result<()> {
        demo::signal(&self.child, Signal::INT)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() && asked.elapsed() < END_LIMIT {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
