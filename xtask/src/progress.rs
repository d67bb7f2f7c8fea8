//! Long steps: a spinner with the command's last line on a terminal, plain lines elsewhere.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Read},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::sh;

/// Steps that finish sooner than this are not worth a line of their own where there is no terminal.
const WORTH_A_LINE: Duration = Duration::from_millis(1500);

/// Runs a command under a title; what it prints is shown whole only when it fails.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    let began = Instant::now();
    let bar = spinner(title);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", sh::show(command)))?;
    let log = Arc::new(Mutex::new(String::new()));
    let readers = [
        child.stdout.take().map(|out| follow(out, &log, &bar)),
        child.stderr.take().map(|out| follow(out, &log, &bar)),
    ];
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {}", sh::show(command)))?;
    for reader in readers.into_iter().flatten() {
        reader.join().ok();
    }
    bar.finish_and_clear();
    if !status.success() {
        eprint!("{}", log.lock().unwrap_or_else(PoisonError::into_inner));
        bail!("{title}: {} failed: {status}", sh::show(command));
    }
    if began.elapsed() > WORTH_A_LINE {
        note(&format!("{title}: {:.1} s", began.elapsed().as_secs_f32()));
    }
    Ok(())
}

/// One plain line about what was done.
pub(crate) fn note(text: &str) {
    eprintln!("xtask: {text}");
}

fn spinner(title: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        note(&format!("{title} …"));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}") {
        bar.set_style(style);
    }
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn follow(out: impl Read + Send + 'static, log: &Arc<Mutex<String>>, bar: &ProgressBar) -> thread::JoinHandle<()> {
    let (log, bar) = (Arc::clone(log), bar.clone());
    thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            bar.set_message(line.trim().to_owned());
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    })
}
