//! What observing a target costs it.

use agent_common::hits::{HitKind, Hits};

use crate::{model::MonoNs, overhead::Costs};

/// What observing a target has cost it since it was attached. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct Overhead {
    /// The last turn of the governor, and the target's CPU time then.
    pub updated: MonoNs,
    pub cpu_clock: u64,
    pub hits: Hits,
    /// By kind of probe.
    pub by_kind: [f64; HitKind::COUNT],
    /// The target's CPU time since it was attached, with that cost.
    pub cpu: f64,
}

impl Default for Overhead {
    /// Nothing yet. Not derived, because the standard library has no default of arrays this long.
    fn default() -> Self {
        Self {
            updated: MonoNs::default(),
            cpu_clock: 0,
            hits: [0; HitKind::COUNT],
            by_kind: [0.0; HitKind::COUNT],
            cpu: 0.0,
        }
    }
}

impl Overhead {
    /// Adds the hits since the last call, and their cost. `hits` are all so far; returns the new ones.
    pub(super) fn add(&mut self, hits: Hits, costs: &Costs) -> Hits {
        let mut new = [0; HitKind::COUNT];
        for (index, (probe, _)) in HitKind::ALL.iter().enumerate() {
            new[index] = hits[index].saturating_sub(self.hits[index]);
            self.by_kind[index] += new[index] as f64 * costs.of(*probe);
        }
        self.hits = hits;
        new
    }

    /// Cost as a share of one core's time since `since`.
    pub fn of_a_core(&self, since: MonoNs) -> f64 {
        let cost: f64 = self.by_kind.iter().sum();
        cost / (self.updated.0.saturating_sub(since.0) as f64).max(1.0)
    }

    /// Cost as a share of the CPU time that the target would have used without it; None while that is 0.
    pub fn share(&self) -> Option<f64> {
        let cost: f64 = self.by_kind.iter().sum();
        let own = self.cpu - cost;
        (own > 0.0).then(|| cost / own)
    }
}
