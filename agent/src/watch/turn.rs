//! One target's turn of the governor: what happened since the last one, told to the ledgers of both planes.

use std::time::Duration;

use agent_common::hits::{Hits, Probe};

use super::{PlaneState, Watched, Window};
use crate::{
    budget::{Decision, Facts, bystander::Attached, ledger::Phase},
    model::MonoNs,
    overhead::{Costs, cost::Part},
};

/// Takes note of what happened to a target since the last turn, and asks the ledgers of both planes. `attached` is whether the hooks
/// are, for whomever.
pub(super) fn turn(
    watched: &mut Watched,
    costs: &Costs,
    hits: Hits,
    now: MonoNs,
    scale: f64,
    (busy, tail): (f64, f64),
    attached: bool,
) -> (Decision, Decision) {
    let overhead = &mut watched.overhead;
    let mut new = [0; Probe::COUNT];
    for (index, (probe, _)) in Probe::ALL.iter().enumerate() {
        new[index] = hits[index].saturating_sub(overhead.hits[index]);
        overhead.by_kind[index] += new[index] as f64 * costs.of(*probe);
    }
    let split = costs.split(&new);
    let (probes, hooks) = (split.probes.cost, split.hooks.cost);
    let always = split.always.cost + split.idle.cost;
    // A target that just ended has no CPU time to show; its end is on its way.
    let clock = watched.target.process.cpu_time().unwrap_or(overhead.clock);
    let cpu = clock.saturating_sub(overhead.clock) as f64;
    let elapsed = now.0.saturating_sub(overhead.turned.0) as f64;
    overhead.hits = hits;
    overhead.clock = clock;
    overhead.turned = now;
    overhead.cpu += cpu;
    let own = cpu - probes - hooks - always;
    let facts = |before: f64, windows: Part| Facts {
        elapsed,
        own,
        before,
        windows: windows.cost,
        scale,
        busy,
        tail,
    };
    if let Some(bystander) = &mut watched.bystander {
        let attached = if watched.hooks.window.is_wanted() {
            Attached::Own
        } else if attached {
            Attached::Others
        } else {
            Attached::No
        };
        bystander.turn(facts(split.always.cost, split.idle), attached);
    }
    let ask = |plane_state: &mut PlaneState, before: f64, windows: Part| {
        plane_state.note(windows);
        let phase = match plane_state.window {
            Window::None => return Decision::Stay,
            Window::Closed if plane_state.unsettled => Phase::Busy,
            Window::Closed => Phase::Closed,
            Window::Busy => Phase::Busy,
            Window::Open { since } => Phase::Open(Duration::from_nanos(now.0.saturating_sub(since.0))),
        };
        let Some(ledger) = plane_state.ledger.as_mut() else {
            // Without a budget it is closed only to be opened anew.
            return if phase == Phase::Closed {
                Decision::Open
            } else {
                Decision::Stay
            };
        };
        match (ledger.turn(facts(before, windows), phase), phase) {
            (turn, _) if scale > 0.0 => turn,
            (_, Phase::Open(_)) => Decision::Close,
            _ => Decision::Stay,
        }
    };
    (
        ask(&mut watched.hooks, always, split.hooks),
        ask(&mut watched.probes, always + hooks, split.probes),
    )
}
