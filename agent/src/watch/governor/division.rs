//! How the budget is divided: among targets, and between a target's planes.

use std::collections::HashMap;

use super::{Governor, decision::Share};
use crate::{
    budget::{
        Bystander, Ledger, Plane,
        division::{self, Demand},
        tail,
    },
    watch::{TargetTable, Watched},
};

impl Governor {
    /// By target id, the part of its own limits that the limit for the host leaves. A target that is not in it has all.
    pub(super) fn scales(&self, targets: &TargetTable) -> HashMap<u32, f64> {
        let Some(host) = self.host_limit else {
            return HashMap::new();
        };
        let demand = |watched: &Watched| {
            let limits = self.limits_of(watched)?;
            let ledger = watched.sockets.ledger.as_ref()?;
            let cores = limits.income(ledger.load(), 1.0);
            let weight = watched.benefit.weight();
            Some((watched.target.id, Demand { cores, weight }))
        };
        let (ids, demands): (Vec<u32>, Vec<Demand>) = targets.iter().filter_map(demand).unzip();
        ids.into_iter().zip(division::shares(&demands, host)).collect()
    }

    /// A target's share of the limits; `scale` is what the limit for the host leaves. The windows of its planes, and those of other targets, divide
    /// the share of its requests that may become slower than the 99th percentile of latency.
    pub(super) fn share(&self, watched: &Watched, scale: f64) -> Share {
        let Some(longer) = self.limits.and_then(|limits| limits.tail) else {
            return Share {
                scale,
                busy: 0.0,
                tail: f64::INFINITY,
                measured: None,
            };
        };
        let load = watched.sockets.ledger.as_ref().map_or(0.0, Ledger::load);
        let planes = watched
            .planes()
            .into_iter()
            .filter(|plane_state| plane_state.extrapolated);
        let windows = planes.count() + usize::from(watched.bystander.as_ref().is_some_and(Bystander::minds));
        let tail = tail::allowed(longer) / windows.max(1) as f64;
        let latency = &watched.latency;
        Share {
            scale,
            busy: watched.capacity.busy(&self.host, load, watched.state.threads()),
            tail,
            measured: latency.is_known().then(|| latency.share(tail)),
        }
    }

    /// Gives a target's hooks on sockets, and its sample, what they may cost, whether they always count or in windows.
    pub(super) fn limit_first(&self, watched: &mut Watched) {
        let Some(limits) = self.limits_of(watched) else { return };
        let mut before = 0.0;
        for plane in [Plane::Sockets, Plane::Sample] {
            if let Some(ledger) = &mut watched.plane_mut(plane).ledger {
                ledger.set_limits(limits.of_first(plane, ledger.full(), before, ledger.load()));
                before += ledger.recent();
            }
        }
    }

    /// Divides a target's budget between its planes, by what the last window of the probes showed.
    pub(in crate::watch) fn divide(&self, watched: &mut Watched) {
        let (Some(limits), Some(ledger)) = (self.limits_of(watched), &mut watched.threads.ledger) else {
            return;
        };
        watched.benefit.note(watched.probes.extrapolator.ready(), ledger.load());
        ledger.set_limits(limits.of(Plane::Threads, watched.benefit.reserved()));
    }
}
