//! The demo's processes: started in process groups of their own, ended by their pids on every way out.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

use crate::sh;

const START_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(3);
/// Planted faults: path, and calls a second.
const FAULTS: &[(&str, &str)] = &[("/gc", "1"), ("/slow-lock", "2"), ("/spin", "1")];
const STOCK_FAULTS: &[(&str, &str)] = &[("/block", "2")];

/// Two services and their callers; dropping it ends them all, callers first.
pub(crate) struct Demo {
    pub(crate) go: u32,
    pub(crate) rust: u32,
    /// In the order they were started.
    processes: Vec<Process>,
}

impl Demo {
    /// Starts everything in `folder` with `rate` requests a second.
    pub(crate) fn start(folder: &Path, rate: u32) -> Result<Self> {
        let mut demo = Self {
            go: 0,
            rust: 0,
            processes: Vec::new(),
        };
        let (rust, stock) = demo.service(&folder.join("rust-stock"), &["--listen", "127.0.0.1:0"])?;
        let stock = format!("http://{stock}");
        let (go, shop) = demo.service(&folder.join("go-shop"), &["-listen", "127.0.0.1:0", "-stock", &stock])?;
        let shop = format!("http://{shop}");
        (demo.go, demo.rust) = (go, rust);

        demo.caller(
            folder,
            "load",
            &format!("{shop}/item?id={{n}}"),
            &rate.to_string(),
            "16",
        )?;
        for (path, rate) in FAULTS {
            demo.caller(folder, path, &format!("{shop}{path}"), rate, "2")?;
        }
        for (path, rate) in STOCK_FAULTS {
            demo.caller(folder, path, &format!("{stock}{path}"), rate, "2")?;
        }
        Ok(demo)
    }

    /// The first process that is gone, with its status: the demo should outlive the agent.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.processes.iter_mut().find_map(|process| {
            let status = process.child.try_wait().ok()??;
            Some(format!("{} ended early: {status}", process.name))
        })
    }

    /// Starts a service and waits for its `listening on ADDR`.
    fn service(&mut self, program: &Path, args: &[&str]) -> Result<(u32, String)> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::piped());
        let process = Process::start(name.clone(), command)?;
        self.processes.push(process);
        let child = &mut self.processes.last_mut().context("just pushed")?.child;
        let out = child.stdout.take().context("its output is piped")?;
        let (send, receive) = mpsc::channel();
        // Reads on to the end, so that the service never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(address) = listening(&line) {
                    send.send(address.to_owned()).ok();
                }
            }
        });
        let address = receive.recv_timeout(START_LIMIT);
        Ok((
            child.id(),
            address.with_context(|| format!("{name} did not say where it listens"))?,
        ))
    }

    fn caller(&mut self, folder: &Path, name: &str, url: &str, rate: &str, connections: &str) -> Result<()> {
        let name = name.trim_start_matches('/').split('?').next().unwrap_or_default();
        let report = folder.join(format!("{name}.json"));
        let mut command = Command::new(folder.join("load"));
        command.args([
            "--url",
            url,
            "--rate",
            rate,
            "--duration",
            "0s",
            "--connections",
            connections,
            "--json",
        ]);
        command.arg(report).stdout(Stdio::null());
        self.processes.push(Process::start(format!("load on {url}"), command)?);
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

/// One child; dropping it asks it to end, and after a while insists.
struct Process {
    name: String,
    child: Child,
}

impl Process {
    fn start(name: String, mut command: Command) -> Result<Self> {
        // A group of its own: the terminal's Ctrl-C must reach the agent alone, which sums up what it still sees run.
        command.process_group(0).stdin(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec the closure makes one system call (prctl) and touches no memory of ours.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", sh::show(&command)))?;
        Ok(Self { name, child })
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        signal(&self.child, Signal::TERM)?;
        let began = Instant::now();
        while began.elapsed() < END_LIMIT {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("{} had to be killed", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(why) = self.end() {
            crate::progress::note(&format!("{why:#}"));
        }
    }
}

/// Sends a signal to a child that has not been waited for, so its pid is still its own.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child has a pid")?;
    rustix::process::kill_process(pid, signal).context("cannot signal a child")
}

fn listening(line: &str) -> Option<&str> {
    line.split_once("listening on ").map(|(_, address)| address.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_a_service_prints() {
        assert_eq!(listening("listening on 127.0.0.1:4567"), Some("127.0.0.1:4567"));
        assert_eq!(listening("go-shop: listening on [::1]:80 "), Some("[::1]:80"));
        assert_eq!(listening("starting"), None);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let process = Process::start("sleep".to_owned(), command).expect("sleep starts");
        let pid = process.child.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
