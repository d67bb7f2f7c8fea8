//! How the budget is shared out: among targets, and between a target's hooks and its probes.

use std::collections::HashMap;

use super::{Watch, Watched};
use crate::budget::{
    Bystander, Ledger,
    division::{self, Demand},
    tail,
};

impl Watch {
    /// By target id, the part of its limits that the host's leave a target; those that are not in it have all.
    pub(super) fn scales(&self) -> HashMap<u32, f64> {
        let (Some(limits), Some(host)) = (self.options.limits, self.options.host) else {
            return HashMap::new();
        };
        let demand = |watched: &Watched| {
            let ledger = watched.hooks.ledger.as_ref()?;
            let cores = limits.income(ledger.load(), 1.0);
            let weight = watched.benefit.weight();
            Some((watched.target.id, Demand { cores, weight }))
        };
        let (target_ids, demands): (Vec<u32>, Vec<Demand>) = self.targets.values().filter_map(demand).unzip();
        target_ids.into_iter().zip(division::shares(&demands, host)).collect()
    }

    /// How busy the cores are that a target has, and the share of its requests that the windows of one of its planes, or
    /// others' windows, may bring over its 99th percentile of latency: those that there are share that.
    pub(super) fn tail(&self, watched: &Watched) -> (f64, f64) {
        let Some(longer) = self.options.limits.and_then(|limits| limits.tail) else {
            return (0.0, f64::INFINITY);
        };
        let load = watched.hooks.ledger.as_ref().map_or(0.0, Ledger::load);
        let planes = [&watched.hooks, &watched.probes]
            .into_iter()
            .filter(|plane_state| plane_state.weighed);
        let windows = planes.count() + usize::from(watched.bystander.as_ref().is_some_and(Bystander::minds));
        (
            watched.capacity.busy(&self.host, load, watched.state.threads()),
            tail::allowed(longer) / windows.max(1) as f64,
        )
    }

    /// A window of a target's probes was settled: what it told decides what they may cost, and what is left to the hooks.
    pub fn judge(&mut self, target_id: u32) {
        let Some(limits) = self.options.limits else { return };
        let Some(watched) = self.by_id(target_id) else { return };
        let Some(ledger) = &mut watched.hooks.ledger else {
            return;
        };
        watched.benefit.note(watched.probes.weigher.ready(), ledger.load());
        ledger.set_limits(limits.of_hooks(watched.benefit.reserved()));
    }
}
