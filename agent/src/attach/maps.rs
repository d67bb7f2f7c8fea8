//! The entries of targets in the kernel's maps: written before a target's first probe is attached, removed after its last one is gone.

mod sweep;
#[cfg(test)]
mod sweep_tests;

use std::cell::{Cell, RefCell};

pub use sweep::{Held, Standing};

use agent_common::{
    go::{
        assist::{AssistTime, Payer, PayerKey, ProcessorKey},
        sched::{Goroutine, GoroutineKey},
    },
    hits::{Cutoff, Plane},
    net::{connect::Connecting, request::Socket},
    target::{PIDS_A_WORD, Refused, SharedMap, Target, Usage},
    thread::{run_queue::Thread, syscall::Call},
    tokio::{
        poll::{Thread as Worker, TypeKey},
        wake::{SiteKey, WokenKey},
    },
};
use aya::maps::{Array, Map, MapData, MapError};

use super::plan::Plan;
use crate::aggregate::{Places, StoreError, Table, store::open};

/// Types of tasks and probed instructions that one target may have, of four times as many that there is room for.
const TYPE_QUOTA: usize = 4096;
const SITE_QUOTA: usize = 1024;

/// The maps that say who is a target, and those that hold what is in progress.
pub struct TargetMaps {
    targets: Array<MapData, Target>,
    indices: Array<MapData, u64>,
    cutoffs: Array<MapData, Cutoff>,
    usage: Array<MapData, Usage>,
    held: Array<MapData, i64>,
    refused: Array<MapData, Refused>,
    types: Places<TypeKey, u32>,
    sites: Places<SiteKey, u32>,
    goroutines: Places<GoroutineKey, Goroutine>,
    assist_times: Table<ProcessorKey, AssistTime>,
    paid: Table<PayerKey, Payer>,
    woken: Places<WokenKey, u64>,
    workers: Places<u32, Worker>,
    connecting: Table<u64, Connecting>,
    sockets: Places<u64, Socket>,
    threads: Places<u32, Thread>,
    syscalls: Table<u32, Call>,
    /// Reads and changes that failed and that the caller goes on without.
    failed: Failed,
}

/// How many entries of a plan the maps had no space for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    pub types: usize,
    pub sites: usize,
}

/// How often a map could not be read or changed since the last call of `take`, and the last error.
#[derive(Debug, Default)]
struct Failed(Cell<u64>, RefCell<String>);

impl Failed {
    fn note(&self, error: &MapError) {
        self.0.set(self.0.get() + 1);
        self.1.replace(error.to_string());
    }

    fn take(&self) -> Option<(u64, String)> {
        let count = self.0.take();
        (count > 0).then(|| (count, self.1.take()))
    }

    /// Notes a failure to remove entries: they only take memory, as target ids are never used again.
    fn tidied(&self, outcome: Result<usize, MapError>) {
        if let Err(error) = outcome {
            self.note(&error);
        }
    }
}

impl TargetMaps {
    /// Takes over the maps by their names in the object.
    pub fn new(take: &mut impl FnMut(&'static str) -> Option<Map>) -> Result<Self, StoreError> {
        Ok(Self {
            targets: open(take, "TARGETS")?,
            indices: open(take, "TARGET_INDEX")?,
            cutoffs: open(take, "CUTOFFS")?,
            usage: open(take, "USAGE")?,
            held: open(take, "HELD")?,
            refused: open(take, "REFUSED")?,
            types: Places::new(open(take, "TOKIO_TYPE_KEYS")?, open(take, "TOKIO_TYPES")?),
            sites: Places::new(open(take, "TOKIO_SITE_KEYS")?, open(take, "TOKIO_SITES")?),
            goroutines: Places::new(open(take, "GOROUTINE_KEYS")?, open(take, "GOROUTINES")?),
            assist_times: open(take, "ASSIST_TIMES")?,
            paid: open(take, "PAID")?,
            woken: Places::new(open(take, "TOKIO_WAKE_KEYS")?, open(take, "TOKIO_WOKEN")?),
            workers: Places::new(open(take, "TOKIO_TIDS")?, open(take, "TOKIO_THREADS")?),
            connecting: open(take, "CONNECTING")?,
            sockets: Places::new(open(take, "SOCKET_KEYS")?, open(take, "SOCKETS")?),
            threads: Places::new(open(take, "THREAD_KEYS")?, open(take, "THREADS")?),
            syscalls: open(take, "SYSCALLS")?,
            failed: Failed::default(),
        })
    }

    /// How often a map could not be read or changed since the last call, and the last error.
    pub fn failed(&self) -> Option<(u64, String)> {
        self.failed.take()
    }

    /// Takes note of a failure that the caller goes on without.
    pub fn note(&self, error: &MapError) {
        self.failed.note(error);
    }

    /// Sets the type of task of each vtable address of a target; returns how many did not fit.
    pub fn set_types(&mut self, target_id: u32, types: &[(u64, u32)]) -> usize {
        let target_id = u64::from(target_id);
        let add = |(vtable, future): &(u64, u32)| {
            self.types.insert(
                &TypeKey {
                    vtable: *vtable,
                    target_id,
                },
                future,
            )
        };
        left_out(types, TYPE_QUOTA, add)
    }

    /// Sets where each probed instruction of a target has its argument; returns how many did not fit.
    fn set_sites(&mut self, target_id: u32, sites: &[(u64, u32)]) -> usize {
        let target_id = u64::from(target_id);
        let add = |(ip, location): &(u64, u32)| self.sites.insert(&SiteKey { ip: *ip, target_id }, location);
        left_out(sites, SITE_QUOTA, add)
    }

    /// Writes the entries of a target's plan.
    pub fn set_plan(&mut self, target_id: u32, plan: &Plan) -> Missing {
        Missing {
            types: self.set_types(target_id, &plan.types),
            sites: self.set_sites(target_id, &plan.sites),
        }
    }

    /// What a target has made of the maps that all share.
    pub fn usage(&self, target: &Target) -> Usage {
        self.usage.get(&target.index, 0).unwrap_or_else(|error| {
            self.failed.note(&error);
            Usage::default()
        })
    }

    /// What a target could not have of those of them that are cleared.
    pub fn refused(&self, target: &Target) -> Refused {
        self.refused.get(&target.index, 0).unwrap_or_else(|error| {
            self.failed.note(&error);
            Refused::default()
        })
    }

    /// Makes a process a target: from here on the kernel side sees what it does.
    pub fn admit(&mut self, pid: u32, target: &Target) -> Result<(), MapError> {
        self.cutoffs.set(target.index, Cutoff::default(), 0)?;
        self.usage.set(target.index, Usage::default(), 0)?;
        self.refused.set(target.index, Refused::default(), 0)?;
        for of in SharedMap::ALL {
            self.held.set(of.held(target.index), 0, 0)?;
        }
        self.targets.set(target.index, target, 0)?;
        self.set_index(pid, target.index)
    }

    /// Tells the programs something new of a target: the window of the planes in `opened` was opened, or one was closed.
    pub fn update(&mut self, target: &Target, opened: u32) -> Result<(), MapError> {
        if opened != 0 {
            // The map changes word by word: the window's begin before the flag that says it is open.
            let before = Target {
                flags: target.flags & !opened,
                ..*target
            };
            self.targets.set(target.index, before, 0)?;
        }
        self.targets.set(target.index, target, 0)
    }

    /// When the programs ended the window of a plane, ns; None when they did not.
    pub fn cut(&self, target: &Target, plane: Plane) -> Result<Option<u64>, MapError> {
        let at = self.cutoffs.get(&target.index, 0)?.at[plane as usize];
        Ok((at != 0).then_some(at))
    }

    /// Hits in windows of a plane so far, but for the last few of each CPU.
    pub fn used(&self, target: &Target, plane: Plane) -> Result<u64, MapError> {
        Ok(self.cutoffs.get(&target.index, 0)?.used[plane as usize])
    }

    /// Forgets that they did, before the plane's next window.
    pub fn clear_cutoff(&mut self, target: &Target, plane: Plane) -> Result<(), MapError> {
        // A hit that another plane adds in between is lost to its allowance, which is told anew at the next turn.
        let mut cut = self.cutoffs.get(&target.index, 0)?;
        cut.at[plane as usize] = 0;
        self.cutoffs.set(target.index, cut, 0)
    }

    /// Stops events of a process; what was counted stays until a [`Self::sweep`].
    pub fn dismiss(&mut self, pid: u32) -> Result<(), MapError> {
        self.set_index(pid, 0)
    }

    fn set_index(&mut self, pid: u32, index: u32) -> Result<(), MapError> {
        let (word, shift) = (pid / PIDS_A_WORD, pid % PIDS_A_WORD * 16);
        let old = self.indices.get(&word, 0)?;
        let new = old & !(0xffff << shift) | u64::from(index) << shift;
        self.indices.set(word, new, 0)
    }
}

/// How many of `all` are over the quota, or were refused by `add`: the others count all the same.
fn left_out<T>(all: &[T], quota: usize, mut add: impl FnMut(&T) -> Result<(), MapError>) -> usize {
    let refused = all.iter().take(quota).filter(|each| add(each).is_err()).count();
    refused + all.len().saturating_sub(quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_or_changed_is_told_once() {
        let failed = Failed::default();
        assert_eq!(failed.take(), None);
        failed.tidied(Ok(3));
        failed.tidied(Err(MapError::KeyNotFound));
        failed.note(&MapError::ElementNotFound);
        let (count, reason) = failed.take().unwrap();
        assert_eq!((count, reason), (2, MapError::ElementNotFound.to_string()));
        assert_eq!(failed.take(), None);
    }
}
