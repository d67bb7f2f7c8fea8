//! How long the threads of a process waited for a core, and how long they had one, by the kernel's own account: always, at any load.

use std::{collections::HashMap, fs, io, path::Path};

use crate::{
    aggregate::store::Reading,
    discover::process::{PROC, threads},
    model::{Metric, MonoNs, PointData},
    signal::{Coverage, LEFT_OUT, SignalState},
    signals::{MemoryRead, ReadWhen, Signal, State, points::metric, summary::Summary},
    target::Target,
    telemetry::thread::totals::{DEFS, RUN_QUEUE_TIME, TIMESLICES},
};

pub const NAME: &str = "thread.totals";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    start: Some(|target, state, _, _| start(target, state)),
    read: Some(MemoryRead {
        when: ReadWhen::Tick,
        read,
    }),
    summary: Some(|_, state, _| summary(state)),
    ..Signal::new(NAME, &DEFS, metrics)
};

/// So many threads are read a second at most: each takes some 5 µs. Of more, all are read every few seconds.
const A_SECOND: usize = 1024;
const SECOND: u64 = 1_000_000_000;
/// A second, less what ticks vary by.
const TICK: u64 = SECOND / 10 * 9;

/// What became of a process' threads since it is watched.
#[derive(Debug, Default)]
pub struct Totals {
    /// When they were first and last read; 0: not yet.
    first: MonoNs,
    last: MonoNs,
    /// By tid, as of the last time.
    threads: HashMap<u32, Account>,
    sum: Account,
}

/// /proc/PID/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats.rst): time on a core and on a run queue, ns, and how often it was on a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub on_core: u64,
    pub run_queue: u64,
    pub timeslices: u64,
}

impl Account {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
        Some(Self {
            on_core: numbers.next()??,
            run_queue: numbers.next()??,
            timeslices: numbers.next()??,
        })
    }

    fn read(pid: u32, tid: u32) -> Option<Self> {
        let path = Path::new(PROC).join(format!("{pid}/task/{tid}/schedstat"));
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    /// Since `before`; all of it for a thread that has since taken over the tid.
    fn since(self, before: Self) -> Self {
        if self.on_core < before.on_core || self.timeslices < before.timeslices {
            return self;
        }
        Self {
            on_core: self.on_core - before.on_core,
            run_queue: self.run_queue.saturating_sub(before.run_queue),
            timeslices: self.timeslices - before.timeslices,
        }
    }

    fn add(&mut self, more: Self) {
        self.on_core += more.on_core;
        self.run_queue += more.run_queue;
        self.timeslices += more.timeslices;
    }
}

impl Totals {
    /// Adds what threads did since the last time. What one did after it, and then ended, is in no account any more.
    fn note(&mut self, now: MonoNs, found: HashMap<u32, Account>) {
        if self.first.0 == 0 {
            self.first = now;
        } else {
            for (tid, account) in &found {
                let before = self.threads.get(tid).copied().unwrap_or_default();
                self.sum.add(account.since(before));
            }
        }
        (self.threads, self.last) = (found, now);
    }

    /// Whether it is time to read them again.
    fn is_due(&self, now: MonoNs) -> bool {
        let seconds = 1 + self.threads.len() as u64 / A_SECOND as u64;
        now.0.saturating_sub(self.last.0) >= (seconds - 1) * SECOND + TICK
    }

    /// Since the process is watched; None before anything could be read.
    pub fn sum(&self) -> Option<Account> {
        (self.first.0 > 0).then_some(self.sum)
    }
}

/// How much there is to see of a process' threads, unless the user wants none of it.
pub fn state(pid: u32, without: &[String]) -> SignalState {
    let coverage = match Account::read(pid, pid) {
        _ if without.iter().any(|name| name == NAME) => Coverage::Off(LEFT_OUT.to_owned()),
        Some(_) => Coverage::Full,
        None => Coverage::Lacking("the kernel keeps no account of threads' waits (CONFIG_SCHED_INFO)".to_owned()),
    };
    SignalState { signal: NAME, coverage }
}

fn start(target: &Target, state: &mut State) {
    if !state.is_off(NAME) {
        state.totals = Some(Totals::default());
        look(target.process.pid, state, target.since);
    }
}

fn look(pid: u32, state: &mut State, now: MonoNs) {
    let Some(totals) = state.totals.as_mut().filter(|totals| totals.is_due(now)) else {
        return;
    };
    let Ok(threads) = threads(pid) else { return };
    let found = threads
        .into_iter()
        .filter_map(|tid| Some((tid, Account::read(pid, tid)?)));
    let found: HashMap<u32, Account> = found.collect();
    if !found.is_empty() {
        totals.note(now, found);
    }
}

/// Reads them; of the process' memory nothing is said by it.
fn read(target: &Target, state: &mut State, now: MonoNs) -> io::Result<bool> {
    look(target.process.pid, state, now);
    Ok(false)
}

fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let Some((totals, sum)) = state.totals.as_ref().and_then(|totals| Some((totals, totals.sum()?))) else {
        return Vec::new();
    };
    let point = target.sum_from(totals.first, sum.timeslices, reading.time, Vec::new());
    let mut time = point.clone();
    time.data = PointData::Time(sum.run_queue);
    let metrics = [metric(&RUN_QUEUE_TIME, vec![time]), metric(&TIMESLICES, vec![point])];
    metrics.into_iter().flatten().collect()
}

/// For how long threads had a core, and waited for one, in each second since the process is watched.
fn summary(state: &State) -> Summary {
    let totals = state.totals.as_ref().filter(|totals| totals.last.0 > totals.first.0);
    let text = totals.map(|totals| {
        let seconds = (totals.last.0 - totals.first.0) as f64;
        let Account { on_core, run_queue, .. } = totals.sum;
        format!(
            "threads: on a core {:.3} s per second, waiting for one {:.3} s per second",
            on_core as f64 / seconds,
            run_queue as f64 / seconds
        )
    });
    Summary::default().note(4, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(on_core: u64, run_queue: u64, timeslices: u64) -> Account {
        Account {
            on_core,
            run_queue,
            timeslices,
        }
    }

    #[test]
    fn what_threads_do_adds_up_as_they_come_and_go() {
        let mut totals = Totals::default();
        assert_eq!(totals.sum(), None);
        // What was before the process is watched does not count.
        totals.note(
            MonoNs(SECOND),
            [(1, account(100, 10, 5)), (2, account(50, 5, 2))].into(),
        );
        assert_eq!(totals.sum(), Some(account(0, 0, 0)));
        // One is new, one is gone.
        totals.note(
            MonoNs(2 * SECOND),
            [(1, account(130, 12, 7)), (3, account(4, 3, 1))].into(),
        );
        assert_eq!(totals.sum(), Some(account(34, 5, 3)));
        // Another thread has the tid of one that is gone.
        totals.note(
            MonoNs(3 * SECOND),
            [(1, account(130, 12, 7)), (3, account(2, 1, 1))].into(),
        );
        assert_eq!(totals.sum(), Some(account(36, 6, 4)));
    }

    #[test]
    fn many_threads_are_read_more_rarely() {
        let mut totals = Totals::default();
        for (count, after) in [(1, 1), (1000, 1), (1024, 2), (10_240, 11)] {
            let found = (0..count).map(|tid| (tid, Account::default()));
            totals.note(MonoNs(100 * SECOND), found.collect());
            assert!(totals.is_due(MonoNs((100 + after) * SECOND)), "{count}");
            assert!(
                !totals.is_due(MonoNs((100 + after) * SECOND - 2 * (SECOND - TICK))),
                "{count}"
            );
        }
    }

    #[test]
    fn the_kernels_account_is_read() {
        assert_eq!(Account::parse("12 34 5\n"), Some(account(12, 34, 5)));
        assert_eq!(Account::parse("12 34"), None);
        let own = std::process::id();
        let before = Account::read(own, own).unwrap();
        assert!(before.timeslices > 0);
        assert_eq!(state(own, &[]).coverage, Coverage::Full);
        assert!(matches!(state(own, &[NAME.to_owned()]).coverage, Coverage::Off(_)));
    }
}
