//! Processes that are too young to be watched: those that run their program for a moment only, as commands do by the hundred, are not
//! worth what attaching costs; and a Go runtime that has not started has nothing to read. They are looked at when they have lived
//! for a little.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use crate::model::MonoNs;

/// Looks at a Go process whose runtime has not started, one at each of the governor's turns: some seconds. Then it is watched
/// without its runtime, and that is said.
const LOOKS: u32 = 500;
/// How long a process runs its program before it is looked at, ns. Most commands are over by then.
const YOUNG: u64 = 250_000_000;
/// Most that wait for that; the next reconciling look finds what is over it.
const BORN: usize = 16 * 1024;

/// Processes to look at again.
#[derive(Debug, Default)]
pub struct Early {
    looks: HashMap<u32, u32>,
    due: Vec<u32>,
    /// Since when each runs its program; the oldest first.
    born: VecDeque<(u64, u32)>,
}

impl Early {
    /// Takes note of a process that runs its program since `time`, ns.
    pub fn born(&mut self, pid: u32, time: u64) {
        if self.born.len() < BORN {
            self.born.push_back((time, pid));
        }
    }

    /// Takes note of a process whose runtime has not started; whether it is to be looked at again.
    pub fn wait(&mut self, pid: u32) -> bool {
        let looks = self.looks.entry(pid).or_default();
        *looks += 1;
        let waits = *looks < LOOKS;
        if waits {
            self.again(pid);
        } else {
            self.looks.remove(&pid);
        }
        waits
    }

    /// Takes note of a process to look at again at the next turn.
    pub fn again(&mut self, pid: u32) {
        if !self.due.contains(&pid) {
            self.due.push(pid);
        }
    }

    /// Whether there are any that are looked at at each turn.
    pub fn is_waiting(&self) -> bool {
        !self.due.is_empty()
    }

    /// Those that it is time for.
    pub fn due(&mut self, now: MonoNs) -> Vec<u32> {
        let mut due = mem::take(&mut self.due);
        while let Some((time, pid)) = self.born.front().copied()
            && now.0.saturating_sub(time) >= YOUNG
        {
            due.push(pid);
            self.born.pop_front();
        }
        due
    }

    /// A process has started, or ended.
    pub fn forget(&mut self, pid: u32) {
        self.looks.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_looked_at_for_some_time_only() {
        let mut early = Early::default();
        let mut looks = 0;
        while early.wait(7) {
            looks += 1;
            assert_eq!(early.due(MonoNs(0)), [7]);
        }
        assert_eq!(looks, LOOKS - 1);
        // Another process has its pid by now.
        assert!(early.wait(7));
        assert_eq!(early.due(MonoNs(0)), [7]);
        early.forget(7);
        assert!(early.due(MonoNs(0)).is_empty() && early.looks.is_empty());
    }

    #[test]
    fn a_young_process_is_looked_at_once_when_it_is_older() {
        let mut early = Early::default();
        for (pid, time) in [(7, 1000), (8, 2000)] {
            early.born(pid, time);
        }
        let check =
            |early: &mut Early, now: u64, expected: &[u32]| assert_eq!(early.due(MonoNs(now)), expected, "{now}");
        check(&mut early, 1500, &[]);
        check(&mut early, YOUNG + 999, &[]);
        check(&mut early, YOUNG + 1000, &[7]);
        check(&mut early, YOUNG + 1000, &[]);
        check(&mut early, 10 * YOUNG, &[8]);
    }

    #[test]
    fn a_flood_of_new_processes_takes_no_more_room_than_this() {
        let mut early = Early::default();
        for pid in 0..100_000 {
            early.born(pid, 0);
        }
        assert_eq!(early.due(MonoNs(YOUNG)).len(), BORN);
    }
}
