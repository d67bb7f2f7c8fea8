//! `cargo xtask run`: the demo under load with the agent in the foreground.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    build,
    demo::{self, Demo},
    demo_build, progress,
    setup::{self, Tools},
    sh,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Start no demo; pass the arguments after `--` to the agent
    #[arg(long)]
    no_demo: bool,
    /// Stop after this time, e.g. 30s, instead of at Ctrl-C
    #[arg(long, allow_hyphen_values = false)]
    duration: Option<String>,
    /// Requests per second for the demo
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// The agent's own arguments
    #[arg(last = true)]
    agent: Vec<String>,
}

const OUT: &str = "whywait-out";

pub(crate) fn run(options: Options) -> Result<()> {
    let began = SystemTime::now();
    ask_for_root()?;
    let tools = setup::ensure(setup::Wanted::default())?;
    let stop = Stop::listen()?;
    let agent = build::agent()?;
    let mut demo = if options.no_demo {
        None
    } else {
        Some(start_demo(&tools, options.rate)?)
    };
    let arguments = arguments(&options, demo.as_ref().map(|demo| (demo.go, demo.rust)));
    if let Some(demo) = &mut demo
        && let Some(why) = demo.ended()
    {
        bail!("{why}");
    }
    if stop.asked.load(Ordering::Relaxed) {
        bail!("stopped before the agent started");
    }
    let child = as_root(&agent)
        .args(&arguments)
        .spawn()
        .context("cannot start the agent")?;
    let status = wait(child, &stop)?;
    if let Some(why) = demo.as_mut().and_then(Demo::ended) {
        progress::note(&why);
    }
    drop(demo);
    report(&arguments, began)?;
    if !status.success() {
        bail!("the agent failed: {status}");
    }
    Ok(())
}

fn start_demo(tools: &Tools, rate: u32) -> Result<Demo> {
    let folder = demo_build::all(tools)?;
    let demo = Demo::start(&folder, rate)?;
    progress::note(&format!(
        "demo: go-shop is pid {}, rust-stock is pid {}, {rate} requests/s",
        demo.go, demo.rust
    ));
    Ok(demo)
}

/// What the agent is called with; the user's own words come last, so they win.
fn arguments(options: &Options, pids: Option<(u32, u32)>) -> Vec<String> {
    let mut words = vec!["run".to_owned()];
    if let Some((go, rust)) = pids {
        words.extend(["--pid".to_owned(), go.to_string(), "--pid".to_owned(), rust.to_string()]);
        if out_folder(&options.agent).is_none() {
            words.extend(["--out".to_owned(), OUT.to_owned()]);
        }
        // The demo is there to show everything, every planted fault among it; a service in production has its budget.
        if !options.agent.iter().any(|word| word.starts_with("--budget")) {
            words.extend(["--budget".to_owned(), "off".to_owned()]);
        }
    }
    if let Some(duration) = &options.duration {
        words.extend(["--duration".to_owned(), duration.clone()]);
    }
    words.extend(options.agent.iter().cloned());
    words
}

/// The value of `--out`, as `--out DIR` or `--out=DIR`.
fn out_folder(words: &[String]) -> Option<PathBuf> {
    let at = words
        .iter()
        .rposition(|word| word == "--out" || word.starts_with("--out="))?;
    let value = words[at]
        .strip_prefix("--out=")
        .or_else(|| words.get(at + 1).map(String::as_str))?;
    Some(value.into())
}

/// The agent needs root: asks for sudo's password now rather than after the builds.
fn ask_for_root() -> Result<()> {
    const NEEDS: &str = "the agent needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE)";
    if sh::is_root() {
        return Ok(());
    }
    if sh::which("sudo").is_none() {
        bail!("{NEEDS} and there is no sudo: run this as root");
    }
    if sh::capture(&mut sh::cmd("sudo", &["-n", "true"])).is_ok() {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{NEEDS}, and sudo wants a password that nobody can type here: run this as root or in a terminal");
    }
    progress::note(&format!("{NEEDS}: sudo asks for your password"));
    sh::run(&mut sh::cmd("sudo", &["-v"]))
}

fn as_root(agent: &Path) -> Command {
    if sh::is_root() {
        return Command::new(agent);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(agent);
    sudo
}

/// Signals that end this command: noted here, so that it outlives the agent and cleans up.
struct Stop {
    asked: Arc<AtomicBool>,
    /// Sent to us alone, unlike the terminal's Ctrl-C, which the agent gets as well.
    forward: Arc<AtomicBool>,
}

impl Stop {
    fn listen() -> Result<Self> {
        let stop = Self {
            asked: Arc::default(),
            forward: Arc::default(),
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.asked)).context("cannot listen for signals")?;
        }
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.forward))?;
        }
        Ok(stop)
    }
}

fn wait(mut agent: Child, stop: &Stop) -> Result<ExitStatus> {
    loop {
        if let Some(status) = agent.try_wait().context("cannot wait for the agent")? {
            return Ok(status);
        }
        if stop.forward.swap(false, Ordering::Relaxed) {
            demo::signal(&agent, Signal::INT)?;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Says where the agent's files are; of those that an earlier run left nothing.
fn report(arguments: &[String], began: SystemTime) -> Result<()> {
    let Some(out) = out_folder(arguments) else {
        return Ok(());
    };
    let is_new = |path: &PathBuf| {
        let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
        modified.is_ok_and(|time| time >= began)
    };
    let entries = std::fs::read_dir(&out).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_new).collect();
    paths.sort();
    if paths.is_empty() {
        progress::note(&format!("nothing was written to {}", out.display()));
        return Ok(());
    }
    progress::note("written:");
    for path in paths {
        println!("{}  {} bytes", path.display(), std::fs::metadata(&path)?.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(no_demo: bool, agent: &[&str], pids: Option<(u32, u32)>, expected: &str) {
        let agent = agent.iter().map(|word| (*word).to_owned()).collect();
        let options = Options {
            no_demo,
            duration: Some("5s".to_owned()),
            rate: 1,
            agent,
        };
        assert_eq!(arguments(&options, pids).join(" "), expected);
    }

    #[test]
    fn the_users_arguments_come_last() {
        check(
            false,
            &[],
            Some((1, 2)),
            "run --pid 1 --pid 2 --out whywait-out --budget off --duration 5s",
        );
        check(
            false,
            &["--out=x", "--budget", "5%"],
            Some((1, 2)),
            "run --pid 1 --pid 2 --duration 5s --out=x --budget 5%",
        );
        check(true, &["--pid", "7"], None, "run --duration 5s --pid 7");
    }
}
