//! What ends a run in order: Ctrl-C, SIGTERM, and the terminal that goes away.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// The signals.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// None where it is ignored, as under nohup(1).
    hangup: Option<Signal>,
}

impl Stop {
    /// From here on they do not end the process.
    pub fn new() -> io::Result<Self> {
        let hangup = !ignores(rustix::process::Signal::HUP.as_raw());
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for one of them. Cancel-safe.
    pub async fn asked(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether this process ignores a signal: a mask in hexadecimal (proc_pid_status(5), SigIgn).
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}
