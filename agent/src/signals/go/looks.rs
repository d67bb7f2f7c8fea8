//! What goroutines do, added up over walks. A walk is a look at one moment: the mean number of goroutines that it finds in a state is the
//! time that goroutines spend in it, in seconds per second.

use std::collections::BTreeMap;

use crate::runtime::go::State;

/// What a goroutine does, as far as it matters why it does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    Runnable,
    Running,
    Syscall,
    Cgo,
    /// It waits for a sync.Mutex or a sync.RWMutex.
    Mutex,
    /// It waits for the network poller.
    Io,
    Other,
}

impl Doing {
    /// Number of them.
    pub const COUNT: usize = Self::Other as usize + 1;

    /// By the runtime's state and its name of the wait reason (go1.20 and later name mutexes; runtime/runtime2.go, waitReasonStrings).
    pub fn of(state: State, reason: &str) -> Self {
        match state {
            State::Runnable => Self::Runnable,
            State::Running => Self::Running,
            State::Syscall => Self::Syscall,
            State::Cgo => Self::Cgo,
            State::Waiting if is_mutex(reason) => Self::Mutex,
            State::Waiting if reason == "IO wait" => Self::Io,
            _ => Self::Other,
        }
    }
}

/// Whether a wait reason is that of a lock.
pub fn is_mutex(reason: &str) -> bool {
    matches!(reason, "sync.Mutex.Lock" | "sync.RWMutex.Lock" | "sync.RWMutex.RLock")
}

/// How many goroutines were found in each state, over all walks.
#[derive(Debug, Default)]
pub struct Looks {
    /// Walks.
    pub count: u64,
    /// By number of the origin, state and wait reason.
    sums: BTreeMap<(usize, State, u32), u64>,
}

impl Looks {
    /// Takes note of what a walk counted.
    pub fn note<'a>(&mut self, counts: impl Iterator<Item = (&'a (Option<usize>, State, u32), &'a u64)>) {
        self.count += 1;
        for ((number, state, reason), count) in counts {
            if let Some(number) = number {
                *self.sums.entry((*number, *state, *reason)).or_default() += count;
            }
        }
    }

    /// Begins anew for an origin's number, which becomes another's.
    pub fn forget(&mut self, number: usize) {
        self.sums.retain(|(of, ..), _| *of != number);
    }

    /// The goroutines of an origin; `now` is what the last walk counted.
    pub fn alive<'a>(
        &self,
        number: usize,
        (startpc, gopc): (u64, u64),
        now: impl Iterator<Item = (&'a (Option<usize>, State, u32), &'a u64)>,
    ) -> Alive {
        let now: Vec<_> = now.collect();
        let most = now.iter().max_by_key(|(_, count)| **count);
        Alive {
            startpc,
            gopc,
            alive: now.iter().map(|(_, count)| **count).sum(),
            most: most.map(|((_, state, reason), _)| (*state, *reason)),
            looks: self.of(number).collect(),
        }
    }

    /// What the goroutines of an origin did: (state, wait reason, sum of the counts of all walks).
    fn of(&self, number: usize) -> impl Iterator<Item = (State, u32, u64)> {
        let range = (number, State::Runnable, 0)..=(number, State::Leaked, u32::MAX);
        self.sums
            .range(range)
            .map(|((_, state, reason), sum)| (*state, *reason, *sum))
    }
}

/// Goroutines of one origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Alive {
    /// Function that they were started with, and the go statement: run-time addresses.
    pub startpc: u64,
    pub gopc: u64,
    /// At the last walk.
    pub alive: u64,
    /// What most of them did then.
    pub most: Option<(State, u32)>,
    /// (state, wait reason, sum of the counts of all walks).
    pub looks: Vec<(State, u32, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_walks_are_added_up() {
        let mut looks = Looks::default();
        for count in [2, 3] {
            let counts = BTreeMap::from([
                ((Some(1), State::Waiting, 7), count),
                ((Some(0), State::Running, 0), 1),
                ((None, State::Running, 0), 9),
            ]);
            looks.note(counts.iter());
        }
        assert_eq!(looks.count, 2);
        assert_eq!(looks.of(1).collect::<Vec<_>>(), [(State::Waiting, 7, 5)]);
        looks.forget(1);
        assert_eq!(looks.of(1).count(), 0);
        assert_eq!(looks.of(0).collect::<Vec<_>>(), [(State::Running, 0, 2)]);
    }

    #[test]
    fn waits_for_locks_are_told_from_others() {
        for (state, reason, expected) in [
            (State::Waiting, "sync.Mutex.Lock", Doing::Mutex),
            (State::Waiting, "sync.RWMutex.RLock", Doing::Mutex),
            (State::Waiting, "IO wait", Doing::Io),
            (State::Waiting, "chan receive", Doing::Other),
            (State::Runnable, "sync.Mutex.Lock", Doing::Runnable),
            (State::Cgo, "", Doing::Cgo),
        ] {
            assert_eq!(Doing::of(state, reason), expected, "{state:?} {reason}");
        }
    }
}
