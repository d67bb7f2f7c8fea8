//! Takes note of what was attached or detached aside, and of what could not be: what there is of each signal is said anew.

use std::io;

use agent_common::target::PROBES_OPEN;
use log::{debug, info, warn};

use super::{Failures, Watch, Watched, Window, govern::announce};
use crate::{
    attach::{
        plan::{Failure, Probe},
        uprobe::{Links, Outcome},
        windows::{Change, Done, Hooks},
    },
    budget::Plane,
    clock,
    model::MonoNs,
    signals,
};

impl Watch {
    /// Takes note of probes and hooks that are attached or detached now.
    pub fn done(&mut self, done: Done) {
        match done {
            Done::Probes { target_id, change } => self.probes_done(target_id, change),
            Done::Hooks(hooks) => self.hooks_done(hooks),
        }
    }

    /// A target, taken out for the moment so that `self` is free.
    fn take(&mut self, target_id: u32) -> Option<Watched> {
        let pid = self.by_id.get(&target_id)?;
        self.targets.remove(pid)
    }

    fn probes_done(&mut self, target_id: u32, change: Change) {
        let watched = self.take(target_id);
        match (watched, change) {
            (Some(mut watched), Change::Opened { outcome, always }) => {
                self.opened(&mut watched, outcome, always);
                self.targets.insert(watched.target.process.pid, watched);
            }
            (Some(mut watched), Change::Closed) => {
                watched.probes.window = Window::Closed;
                if let Some(ledger) = &mut watched.probes.ledger {
                    ledger.closed();
                }
                self.targets.insert(watched.target.process.pid, watched);
            }
            (Some(mut watched), Change::Again { always }) => {
                note_again(&mut watched, always);
                watched.probes.window = if watched.probes.probes.is_empty() {
                    Window::None
                } else {
                    Window::Closed
                };
                self.targets.insert(watched.target.process.pid, watched);
            }
            // The target ended meanwhile; its process may go on.
            (None, Change::Opened { outcome, always }) => self.left(target_id, [outcome.links, always.links]),
            (None, Change::Again { always }) => self.left(target_id, [always.links]),
            (None, Change::Closed) => {
                self.leaving.over(target_id);
            }
        }
    }

    /// Takes out again what was put into a process meanwhile that is no target any more.
    fn left<const N: usize>(&mut self, target_id: u32, links: [Links; N]) {
        let pid = self.leaving.over(target_id);
        for links in links {
            let task = self.windows.detach(links);
            if let Some(pid) = pid {
                self.leaving.add(pid, task);
            }
        }
    }

    fn hooks_done(&mut self, done: Hooks) {
        let before = self.hook_set.failures();
        for target_id in self.hook_set.done(done, &self.windows) {
            let Some(mut watched) = self.take(target_id) else {
                continue;
            };
            if watched.hooks.window == Window::Busy {
                self.hooks_opened(&mut watched);
            }
            self.targets.insert(watched.target.process.pid, watched);
        }
        let failures = self.hook_set.failures();
        if failures == before {
            return;
        }
        for target_id in self.by_id.keys().copied().collect::<Vec<_>>() {
            let Some(mut watched) = self.take(target_id) else {
                continue;
            };
            watched.failures.hooks.clone_from(&failures);
            watched.restate();
            self.follow_threads(&mut watched);
            self.targets.insert(watched.target.process.pid, watched);
        }
    }

    /// Since when threads are followed in windows of the hooks that begin `now`; 0 while they are not.
    pub(super) fn threads_since(&self, now: MonoNs) -> u64 {
        if self.hook_set.counts(signals::thread::run_queue::NAME) {
            now.0
        } else {
            0
        }
    }

    /// Tells the kernel side that the hooks on its scheduler came back while a window was open.
    fn follow_threads(&mut self, watched: &mut Watched) {
        if watched.hooks.window.is_open() && watched.known.threads_since == 0 {
            watched.known.threads_since = self.threads_since(clock::now());
            self.tell(watched, 0);
        }
    }

    /// Tells the kernel side which types of tasks are not seen to end, where other probes are `missing` than before the last window, and
    /// says what that takes away. No window is open yet, so that no program goes by what was before.
    fn mark_types(&mut self, watched: &mut Watched, missing: &[Probe]) -> Option<Failure> {
        let (image, before) = (watched.target.image.as_deref()?, !watched.lost.is_empty());
        let lost = signals::plan::lost(image, watched.target.bias, missing, before)?;
        if watched.lost != lost.places {
            // Those for which there was no room have none now: that was said when it was attached.
            self.maps.set_types(watched.target.id, &lost.types);
            watched.lost = lost.places;
        }
        lost.failure
    }

    fn opened(&mut self, watched: &mut Watched, outcome: Outcome, always: Outcome) {
        let first = watched.known.probes_since == 0;
        let ended = !outcome.failures.is_empty() && !watched.target.process.is_alive();
        if ended {
            debug!("process {} ended while it was attached", watched.target.process.pid);
        } else {
            let unended = self.mark_types(watched, &outcome.missing);
            let failures = outcome.failures.into_iter().chain(unended).collect();
            note(watched, |failures| &mut failures.probes, failures);
            note_again(watched, always);
        }
        let now = clock::now();
        watched.probes.links = outcome.links;
        watched.known.probes_since = now.0;
        watched.known.allowance[Plane::Probes as usize] = watched.probes.allowance(self.used(watched, Plane::Probes));
        self.clear_cut(watched, Plane::Probes);
        watched.known.flags |= PROBES_OPEN;
        watched.probes.window = Window::Open { since: now };
        if first {
            // What was before the first window is not what windows stand for.
            watched.probes.settled = now;
        }
        self.tell(watched, PROBES_OPEN);
        if first && !ended {
            announce(watched);
        }
    }
}

/// Takes note of what became of probes that are always in place and were tried again, if there were any.
fn note_again(watched: &mut Watched, always: Outcome) {
    watched.tried = clock::now();
    if !watched.missing.is_empty() && (always.failures.is_empty() || watched.target.process.is_alive()) {
        watched.links.extend(always.links);
        watched.missing = always.missing;
        note(watched, |failures| &mut failures.always, always.failures);
    }
    if watched.failures.always.is_empty() && watched.failures.probes.is_empty() {
        watched.tries = 0;
    }
}

/// Takes note of how what a signal reads of a process' memory was answered. That the process ended comes on its way.
pub fn note_memory(watched: &mut Watched, signal: &'static str, outcome: io::Result<()>) {
    let late = outcome.inspect_err(|error| {
        debug!(
            "process {}: cannot read its memory: {error}",
            watched.target.process.pid
        )
    });
    let late = late.err().filter(|error| error.kind() == io::ErrorKind::TimedOut);
    let known = watched.failures.memory.iter().any(|failure| failure.signal == signal);
    if known == late.is_some() {
        return;
    }
    let mut failures = watched.failures.memory.clone();
    failures.retain(|failure| failure.signal != signal);
    failures.extend(late.map(|error| Failure {
        signal,
        essential: true,
        reason: format!("a read of the process' memory does not return: {error}"),
    }));
    note(watched, |failures| &mut failures.memory, failures);
}

/// Takes note of what could not be attached now, where something else was the last time: what there is of the signals is said anew.
pub(super) fn note(watched: &mut Watched, of: fn(&mut Failures) -> &mut Vec<Failure>, now: Vec<Failure>) {
    let pid = watched.target.process.pid;
    let before = std::mem::replace(of(&mut watched.failures), now);
    let now = &*of(&mut watched.failures);
    for Failure { signal, reason, .. } in now.iter().filter(|failure| !before.contains(failure)) {
        warn!("process {pid}: {signal}: {reason}");
    }
    for Failure { signal, .. } in before.iter().filter(|failure| !now.contains(failure)) {
        info!("process {pid}: {signal}: what was missing is available now");
    }
    watched.restate();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        deadline::{self, Late},
        discover::Process,
        signal::{Coverage, SignalState},
        signals::State,
        target::Target,
    };

    #[test]
    fn memory_that_does_not_answer_is_said_as_long_as_it_does_not() {
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
            note_memory(&mut watched, read, outcome);
            assert_eq!((watched.state.is_off(read), watched.state.is_off(other)), (off, false));
            // It is read again all the same.
            assert!(!watched.state.is_never_on(read));
        };
        let late = || Err(Late::Unanswered(deadline::SOON).into());
        check(Ok(()), false);
        check(late(), true);
        check(late(), true);
        check(Ok(()), false);
        // It ended: that is told otherwise.
        check(Err(io::ErrorKind::UnexpectedEof.into()), false);
    }
}
