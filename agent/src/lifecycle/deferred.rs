//! Processes whose check is deferred. Most commands end within a moment, so a new program is checked only after some time. A Go process
//! whose runtime has not started is checked again and again, because there is nothing to read yet.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use crate::model::MonoNs;

/// Checks of a Go process whose runtime has not started, one at each of the governor's turns: some seconds. Then it is admitted without
/// its runtime, with a warning.
const START_CHECKS: u32 = 500;
/// How long a process runs its program before it is checked, ns. Most commands have ended by then.
const MIN_AGE: u64 = 250_000_000;
/// Most new programs that are kept; the next scan finds the others.
const NEW_LIMIT: usize = 16 * 1024;

/// Processes to check later.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    /// How often each process was checked whose runtime had not started.
    start_checks: HashMap<u32, u32>,
    /// To be checked at the next turn.
    retry: Vec<u32>,
    /// New programs, and since when each runs; the oldest first.
    new: VecDeque<(u64, u32)>,
}

impl Deferred {
    /// Defers the check of a process that runs a new program since `time`, ns.
    pub(super) fn add_new(&mut self, pid: u32, time: u64) {
        if self.new.len() < NEW_LIMIT {
            self.new.push_back((time, pid));
        }
    }

    /// Whether a process may be checked once more if its runtime has not started at this check.
    pub(super) fn may_wait_for_start(&self, pid: u32) -> bool {
        self.start_checks.get(&pid).copied().unwrap_or_default() + 1 < START_CHECKS
    }

    /// Defers the check of a process whose runtime has not started.
    pub(super) fn wait_for_start(&mut self, pid: u32) {
        *self.start_checks.entry(pid).or_default() += 1;
        self.retry(pid);
    }

    /// Defers a check to the next turn.
    pub(super) fn retry(&mut self, pid: u32) {
        if !self.retry.contains(&pid) {
            self.retry.push(pid);
        }
    }

    /// Whether any are to be checked at the next turn.
    pub(super) fn has_retries(&self) -> bool {
        !self.retry.is_empty()
    }

    /// Takes those that are to be checked now.
    pub(super) fn take_due(&mut self, now: MonoNs) -> Vec<u32> {
        let mut due = mem::take(&mut self.retry);
        while let Some((time, pid)) = self.new.front().copied()
            && now.0.saturating_sub(time) >= MIN_AGE
        {
            due.push(pid);
            self.new.pop_front();
        }
        due
    }

    /// Forgets how often the start of a process was waited for: it started, ended, or is no longer waited for.
    pub(super) fn forget(&mut self, pid: u32) {
        self.start_checks.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_runtime_is_waited_for_for_some_time_only() {
        let mut deferred = Deferred::default();
        let mut checks = 0;
        while deferred.may_wait_for_start(7) {
            deferred.wait_for_start(7);
            checks += 1;
            assert_eq!(deferred.take_due(MonoNs(0)), [7]);
        }
        assert_eq!(checks, START_CHECKS - 1);
        deferred.forget(7);
        // Another process has its pid by now.
        assert!(deferred.may_wait_for_start(7));
        deferred.wait_for_start(7);
        assert!(deferred.has_retries());
        assert_eq!(deferred.take_due(MonoNs(0)), [7]);
        deferred.forget(7);
        assert!(deferred.take_due(MonoNs(0)).is_empty() && deferred.start_checks.is_empty());
    }

    #[test]
    fn a_new_program_is_checked_once_when_it_is_older() {
        let mut deferred = Deferred::default();
        for (pid, time) in [(7, 1000), (8, 2000)] {
            deferred.add_new(pid, time);
        }
        let mut check = |now: u64, expected: &[u32]| assert_eq!(deferred.take_due(MonoNs(now)), expected, "{now}");
        check(1500, &[]);
        check(MIN_AGE + 999, &[]);
        check(MIN_AGE + 1000, &[7]);
        check(MIN_AGE + 1000, &[]);
        check(10 * MIN_AGE, &[8]);
    }

    #[test]
    fn a_flood_of_new_programs_is_limited() {
        let mut deferred = Deferred::default();
        for pid in 0..100_000 {
            deferred.add_new(pid, 0);
        }
        assert_eq!(deferred.take_due(MonoNs(MIN_AGE)).len(), NEW_LIMIT);
    }
}
