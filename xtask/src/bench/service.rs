//! The services under load and the agent beside them: children that are ended by their own pids on every way out.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{demo, sh};

const START_LIMIT: Duration = Duration::from_secs(30);

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
    pub(super) fn end(mut self) -> Result<()> {
        demo::signal(&self.child, Signal::INT)?;
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
    let mut command = Command::new(program);
    command.args(["run", "--plain", "--out"]).arg(out);
    for pid in pids {
        command.args(["--pid", &pid.to_string()]);
    }
    command.args(args);
    command.env("RUST_LOG", "info");
    let (running, _) = Running::start(command, pids.len(), |line| {
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

#[derive(Deserialize)]
struct Report {
    count: u64,
    errors: u64,
    achieved_rate: f64,
    from_sent: Latency,
}

#[derive(Deserialize)]
struct Latency {
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: f64,
}

/// Loads `url` for `seconds` at a rate (0: as fast as the connections carry) over so many connections, and measures the
/// process behind it.
pub(super) fn window(
    folder: &Path,
    pid: u32,
    url: &str,
    (rate, connections): (f64, u32),
    seconds: u32,
) -> Result<Window> {
    let json = sh::target().join("xtask/bench-load.json");
    let (rate, duration) = (rate.to_string(), format!("{seconds}s"));
    let mut load = Command::new(folder.join("load"));
    load.args(["--url", url, "--rate", &rate, "--duration", &duration]);
    load.args(["--connections", &connections.to_string(), "--json"])
        .arg(&json);
    std::fs::create_dir_all(sh::target().join("xtask"))?;
    let (began, before) = (SystemTime::now(), cpu(pid)?);
    sh::capture(&mut load)?;
    let (ended, after) = (SystemTime::now(), cpu(pid)?);
    let report: Report = serde_json::from_slice(&std::fs::read(&json)?)?;
    if report.count == 0 || report.errors > 0 {
        bail!("{url}: {} answers, {} errors", report.count, report.errors);
    }
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
