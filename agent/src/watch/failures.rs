//! What of a target could not be attached or read at the last attempt.

use std::io;

use log::debug;

use super::Watched;
use crate::attach::plan::Failure;

/// The failures, by what failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Probes that are always attached.
    pub always: Vec<Failure>,
    /// The probe of the runtime's own sample.
    pub sample: Vec<Failure>,
    /// Probes of goroutines and tasks.
    pub probes: Vec<Failure>,
    /// The kernel's hooks.
    pub hooks: Vec<Failure>,
    /// Reads of the process' memory.
    pub memory: Vec<Failure>,
}

impl Failures {
    pub(super) fn all(&self) -> impl Iterator<Item = &Failure> {
        let Self {
            always,
            sample,
            probes,
            hooks,
            memory,
        } = self;
        [always, sample, probes, hooks, memory].into_iter().flatten()
    }
}

impl Watched {
    /// Takes over the outcome of a signal's read of the process' memory. That the process ended is reported by its pidfd.
    pub fn set_memory_outcome(&mut self, signal: &'static str, outcome: io::Result<()>) {
        let late =
            outcome.inspect_err(|error| debug!("process {}: cannot read its memory: {error}", self.target.process.pid));
        let late = late.err().filter(|error| error.kind() == io::ErrorKind::TimedOut);
        let is_known = self.failures.memory.iter().any(|failure| failure.signal == signal);
        if is_known == late.is_some() {
            return;
        }
        let mut failures = self.failures.memory.clone();
        failures.retain(|failure| failure.signal != signal);
        failures.extend(late.map(|error| Failure {
            signal,
            essential: true,
            reason: format!("a read of the process' memory does not return: {error}"),
        }));
        self.set_failures(|failures| &mut failures.memory, failures);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        deadline::{self, Late},
        discover::Process,
        model::MonoNs,
        signal::{Coverage, SignalState},
        signals::{self, State},
        target::Target,
    };

    #[test]
    fn a_signal_is_off_while_reads_of_memory_do_not_return() {
        let own = Process::read(std::process::id()).unwrap();
        let mut watched = Watched::new(Target::new(own, 1, Arc::default(), MonoNs(0)), State::default());
        let (read, other) = (signals::go::runtime::NAME, signals::go::gc::NAME);
        watched.state.planned = [read, other]
            .map(|signal| SignalState {
                signal,
                coverage: Coverage::Full,
            })
            .to_vec();
        watched.restate();
        let mut check = |outcome: io::Result<()>, off: bool| {
            watched.set_memory_outcome(read, outcome);
            assert_eq!((watched.state.is_off(read), watched.state.is_off(other)), (off, false));
            // It is read again all the same.
            assert!(!watched.state.is_never_on(read));
        };
        let late = || Err(Late::Unanswered(deadline::SOON).into());
        check(Ok(()), false);
        check(late(), true);
        check(late(), true);
        check(Ok(()), false);
        // The process ended: its pidfd reports that.
        check(Err(io::ErrorKind::UnexpectedEof.into()), false);
    }
}
