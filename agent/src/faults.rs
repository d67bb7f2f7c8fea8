//! What goes wrong around a run and does not end it: logged, not more than once a minute by kind, and counted.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use log::{debug, warn};

/// How long a kind of fault is not mentioned again.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The summary could not be written.
    Screen,
    /// Pictures that nobody took: the terminal stands still.
    Pictures,
    /// Log lines that nobody took.
    Log,
    /// A map of the kernel's could not be read or changed.
    Maps,
    /// Nothing wakes the agent when the ring buffer fills; it is emptied at the governor's turns.
    Ring,
    /// A recording that could not be written.
    Recording,
    /// A process' memory or a file did not answer in time.
    Late,
    /// Messages of the eBPF programs that did not reach the log.
    KernelLog,
}

impl Fault {
    /// All with the name they are exported under, and what people are told.
    pub const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Screen, "screen", "cannot write to standard output"),
        (Self::Pictures, "pictures", "standard output is blocked"),
        (Self::Log, "log", "cannot write to standard error"),
        (Self::Maps, "maps", "cannot read or change a kernel map"),
        (Self::Ring, "ring", "cannot wait for the ring buffer"),
        (Self::Recording, "recording", "cannot write the recording"),
        (
            Self::Late,
            "late",
            "a read of a process' memory or of a file does not return",
        ),
        (
            Self::KernelLog,
            "kernel_log",
            "messages of the eBPF programs were left out",
        ),
    ];
}

/// Faults so far, by [`Fault`].
#[derive(Debug, Default)]
pub struct Faults {
    pub counts: [u64; Fault::ALL.len()],
    said: [Option<Instant>; Fault::ALL.len()],
}

impl Faults {
    /// Counts a fault, and says so unless it was said of late.
    pub fn note(&mut self, fault: Fault, why: impl Display) {
        self.note_many(fault, 1, why);
    }

    /// The same of many at once.
    pub fn note_many(&mut self, fault: Fault, count: u64, why: impl Display) {
        let (index, now) = (fault as usize, Instant::now());
        self.counts[index] += count;
        let (_, _, text) = Fault::ALL[index];
        if self.said[index].is_some_and(|said| now.duration_since(said) < SILENCE) {
            debug!("{text}: {why}");
            return;
        }
        self.said[index] = Some(now);
        warn!("{text}: {why}; the run continues ({} times so far)", self.counts[index]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind() {
        let mut faults = Faults::default();
        for (index, (fault, ..)) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, index);
            faults.note(*fault, "why");
        }
        faults.note_many(Fault::Log, 5, "why");
        assert_eq!(faults.counts, [1, 1, 6, 1, 1, 1, 1, 1]);
    }
}
