//! How often the probes and hooks of targets were hit, by the kernel's counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_common::hits::{Account, HitKind, Hits};
use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};

/// The kernel's counts of hits.
#[derive(Clone)]
pub struct HitCounts(Arc<Mutex<PerCpuArray<MapData, Account>>>);

impl HitCounts {
    /// Takes over the map.
    pub(super) fn new(accounts: PerCpuArray<MapData, Account>) -> Self {
        Self(Arc::new(Mutex::new(accounts)))
    }

    /// Hits of the target at an index so far.
    pub fn of(&self, index: u32) -> Result<Hits, MapError> {
        let mut sum = [0; HitKind::COUNT];
        for of_cpu in self.accounts().get(&index, 0)?.iter() {
            for (sum, hits) in sum.iter_mut().zip(of_cpu.counted()) {
                *sum += hits;
            }
        }
        Ok(sum)
    }

    /// Sets a target's hits to 0.
    pub(super) fn clear(&self, index: u32) -> Result<(), MapError> {
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        let none = PerCpuValues::try_from(vec![Account::default(); cpus]).map_err(MapError::IoError)?;
        self.accounts().set(index, none, 0)
    }

    fn accounts(&self) -> MutexGuard<'_, PerCpuArray<MapData, Account>> {
        // A map has no state of ours that a panic could leave half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
