//! One walk over each map of what is under way: removes what is over, and counts what is left.

use std::collections::{HashMap, HashSet};

use agent_common::{
    target::{SharedMap, Target},
    tokio::wake::POLLED,
};
use aya::maps::MapError;
use bytemuck::{AnyBitPattern, NoUninit};

use super::{Failed, TargetMaps};
use crate::aggregate::{Places, Table};

/// What a target keeps in the maps. The programs do not mistake the rest for what they see next, but it takes room: a socket that is
/// closed while no hook sees it would stay.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether what the hooks on sockets have in progress counts.
    pub sockets: bool,
    /// The same of those on threads.
    pub threads: bool,
    /// Since when what the probes have in progress counts, ns; u64::MAX where no window of theirs is open.
    pub probes: u64,
}

impl Standing {
    /// All that it has.
    pub const WHOLE: Self = Self {
        sockets: true,
        threads: true,
        probes: 0,
    };

    fn has_probes(self) -> bool {
        self.probes != u64::MAX
    }
}

/// How many entries each target has, as a walk found it.
#[derive(Debug, Default)]
pub struct Held {
    /// By [`SharedMap`], and target id; None of a map that could not be read.
    counts: [Option<HashMap<u32, i64>>; SharedMap::COUNT],
    /// What is kept by thread: the map, the target id, the tid.
    threads: Vec<(SharedMap, u32, u32)>,
}

impl Held {
    /// Ids of targets that have entries by thread.
    pub fn with_threads(&self) -> HashSet<u32> {
        self.threads.iter().map(|(_, target_id, _)| *target_id).collect()
    }
}

/// A map of things in progress.
pub(super) trait Entries<K, V> {
    fn remove_where(&mut self, gone: impl FnMut(&K, &V) -> bool) -> Result<usize, MapError>;
}

impl<K: aya::Pod + AnyBitPattern + NoUninit, V: aya::Pod + AnyBitPattern> Entries<K, V> for Table<K, V> {
    fn remove_where(&mut self, gone: impl FnMut(&K, &V) -> bool) -> Result<usize, MapError> {
        self.remove_where(gone)
    }
}

impl<K: aya::Pod + AnyBitPattern + PartialEq, V: aya::Pod + AnyBitPattern> Entries<K, V> for Places<K, V> {
    fn remove_where(&mut self, gone: impl FnMut(&K, &V) -> bool) -> Result<usize, MapError> {
        self.remove_where(gone)
    }
}

struct Walk<'a, S> {
    stands: S,
    failed: &'a Failed,
    held: Held,
}

impl<S: Fn(u32) -> Option<Standing>> Walk<'_, S> {
    /// Removes what is over, and shows what is `kept`; whether the map could be read.
    fn clear<K, V>(
        &self,
        table: &mut impl Entries<K, V>,
        target_id: impl Fn(&K, &V) -> u32,
        counts: impl Fn(Standing, &V) -> bool,
        mut kept: impl FnMut(u32, &K),
    ) -> bool {
        let outcome = table.remove_where(|key, value| {
            let target_id = target_id(key, value);
            let is_kept = (self.stands)(target_id).is_some_and(|standing| counts(standing, value));
            if is_kept {
                kept(target_id, key);
            }
            !is_kept
        });
        let is_read = outcome.is_ok();
        self.failed.tidied(outcome);
        is_read
    }

    /// The same of a map whose entries are counted.
    fn count<K, V>(
        &mut self,
        of: SharedMap,
        table: &mut impl Entries<K, V>,
        target_id: impl Fn(&K, &V) -> u32,
        counts: impl Fn(Standing, &V) -> bool,
    ) {
        let mut found = HashMap::new();
        let is_read = self.clear(table, target_id, counts, |target_id, _| {
            *found.entry(target_id).or_default() += 1
        });
        self.held.counts[of as usize] = is_read.then_some(found);
    }

    /// The same of one that is kept by thread.
    fn threads<V>(
        &mut self,
        of: SharedMap,
        table: &mut impl Entries<u32, V>,
        target_id: impl Fn(&V) -> u32,
        counts: impl Fn(Standing) -> bool,
    ) {
        let (mut found, mut tids) = (HashMap::new(), Vec::new());
        let kept = |target_id, tid: &u32| {
            *found.entry(target_id).or_default() += 1;
            tids.push((of, target_id, *tid));
        };
        let is_read = self.clear(table, |_, value| target_id(value), |standing, _| counts(standing), kept);
        self.held.counts[of as usize] = is_read.then_some(found);
        self.held.threads.extend(tids);
    }
}

impl TargetMaps {
    /// Removes entries that are over: `stands` says how each target stands, None for one that is gone. Wakes from before `old` go too, and tasks that
    /// were last polled before `idle`. Returns what is left.
    pub fn sweep(&mut self, stands: impl Fn(u32) -> Option<Standing>, old: u64, idle: u64) -> Held {
        let mut walk = Walk {
            stands,
            failed: &self.failed,
            held: Held::default(),
        };
        walk.count(
            SharedMap::Goroutines,
            &mut self.goroutines,
            |key, _| key.target_id as u32,
            |standing, value| value.window >= standing.probes,
        );
        walk.count(
            SharedMap::TokioWoken,
            &mut self.woken,
            |key, _| key.target_id as u32,
            |standing, at| {
                let limit = if at & POLLED == 0 { old } else { idle };
                at & !POLLED >= standing.probes.max(limit)
            },
        );
        walk.threads(
            SharedMap::TokioThreads,
            &mut self.workers,
            |value| value.target_id,
            Standing::has_probes,
        );
        walk.count(
            SharedMap::Connecting,
            &mut self.connecting,
            |_, value| value.target_id,
            |_, _| true,
        );
        walk.count(
            SharedMap::Sockets,
            &mut self.sockets,
            |_, value| value.target_id,
            |standing, _| standing.sockets,
        );
        walk.threads(
            SharedMap::Threads,
            &mut self.threads,
            |value| value.target_id,
            |standing| standing.threads,
        );
        walk.threads(
            SharedMap::Syscalls,
            &mut self.syscalls,
            |value| value.target_id,
            |standing| standing.threads,
        );
        walk.clear(
            &mut self.assist_times,
            |key, _| key.target_id as u32,
            |standing, _| standing.has_probes(),
            |_, _| {},
        );
        walk.clear(&mut self.paid, |key, _| key.target_id, |_, _| true, |_, _| {});
        walk.clear(&mut self.types, |key, _| key.target_id as u32, |_, _| true, |_, _| {});
        walk.clear(&mut self.sites, |key, _| key.target_id as u32, |_, _| true, |_, _| {});
        walk.held
    }

    /// Removes all entries of targets that are `gone`.
    pub fn forget(&mut self, gone: impl Fn(u32) -> bool) {
        self.sweep(|target_id| (!gone(target_id)).then_some(Standing::WHOLE), 0, 0);
    }

    /// Removes the entries of threads that are dead, by target id and tid.
    pub fn forget_threads(&mut self, held: &mut Held, is_dead: impl Fn(u32, u32) -> bool) {
        for of in [SharedMap::TokioThreads, SharedMap::Threads, SharedMap::Syscalls] {
            let mut dead = Vec::new();
            for (_, target_id, tid) in held.threads.iter().filter(|(map, ..)| *map as usize == of as usize) {
                if is_dead(*target_id, *tid) {
                    dead.push(*tid);
                    let count = held.counts[of as usize]
                        .as_mut()
                        .and_then(|counts| counts.get_mut(target_id));
                    count.into_iter().for_each(|count| *count -= 1);
                }
            }
            let outcome = match of {
                SharedMap::TokioThreads => self.workers.remove(&dead),
                SharedMap::Threads => self.threads.remove(&dead),
                _ => self.syscalls.remove(&dead),
            };
            self.failed.tidied(outcome.map(|()| 0));
        }
    }

    /// Says how much targets hold: the programs count what they add and remove, and not what is removed here.
    pub fn set_held(&mut self, targets: &[Target], held: &Held) {
        for of in SharedMap::ALL {
            let Some(counts) = &held.counts[of as usize] else {
                continue;
            };
            for target in targets {
                let count = counts.get(&target.id).copied().unwrap_or_default();
                // What programs add or remove between the walk and this is off by one each, until the next time.
                if let Err(error) = self.held.set(of.held(target.index), count, 0) {
                    self.failed.note(&error);
                }
            }
        }
    }
}
