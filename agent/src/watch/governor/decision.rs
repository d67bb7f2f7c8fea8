//! What the ledgers of one target decide, from what happened since the last turn.

use std::time::Duration;

use agent_common::hits::Hits;

use crate::{
    budget::{Decision, Facts, Plane, bystander::Attached, ledger::Phase},
    model::MonoNs,
    overhead::{Costs, cost::Part},
    watch::{PlaneState, Watched, Window, planes::HOOKED},
};

/// What is to become of the windows, by plane.
pub(super) type Decisions = [Decision; Plane::COUNT];

/// A target's share of the limits.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// The part of its own limits.
    pub(super) scale: f64,
    /// How busy its cores are.
    pub(super) busy: f64,
    /// The share of its requests that the windows of one plane may make slower than the 99th percentile of latency.
    pub(super) tail: f64,
    /// The share of the time that windows of a plane may take because of that, where it is measured.
    pub(super) measured: Option<f64>,
}

/// Adds what happened to a target since the last turn, and asks its ledgers. `attached` is, by plane of hooks, whether they are attached for any
/// target.
pub(super) fn decide(
    watched: &mut Watched,
    costs: &Costs,
    hits: Hits,
    now: MonoNs,
    share: Share,
    attached: [bool; HOOKED.len()],
) -> Decisions {
    let overhead = &mut watched.overhead;
    let split = costs.split(&overhead.add(hits, costs));
    let in_windows: f64 = split.windows.iter().map(|part| part.cost).sum();
    let always = split.always.cost + split.idle.cost;
    // A process that has just ended has no CPU time; its end is reported soon.
    let cpu_clock = watched.target.process.cpu_time().unwrap_or(overhead.cpu_clock);
    let cpu = cpu_clock.saturating_sub(overhead.cpu_clock) as f64;
    let elapsed = now.0.saturating_sub(overhead.updated.0) as f64;
    overhead.cpu_clock = cpu_clock;
    overhead.updated = now;
    overhead.cpu += cpu;
    let own = cpu - in_windows - always;
    let facts = |before: f64, windows: Part| Facts {
        elapsed,
        own,
        before,
        windows: windows.cost,
        scale: share.scale,
        busy: share.busy,
        tail: share.tail,
        measured: share.measured,
    };
    if let Some(bystander) = &mut watched.bystander {
        let mut for_whom = Attached::No;
        for (plane, attached) in HOOKED.into_iter().zip(attached) {
            if !attached {
                continue;
            }
            let of_plane = if plane == Plane::Sockets {
                &watched.sockets
            } else {
                &watched.threads
            };
            if !of_plane.window.is_open_or_changing() {
                for_whom = Attached::Others;
            } else if for_whom == Attached::No {
                for_whom = Attached::Own;
            }
        }
        bystander.turn(facts(split.always.cost, split.idle), for_whom);
    }
    let ask = |plane_state: &mut PlaneState, facts: Facts, windows: Part| {
        plane_state.add_hits(windows);
        let phase = match plane_state.window {
            Window::None => return Decision::Stay,
            Window::Closed if plane_state.is_pending => Phase::Busy,
            Window::Closed => Phase::Closed,
            Window::Busy => Phase::Busy,
            Window::Open { since } => Phase::Open(Duration::from_nanos(now.0.saturating_sub(since.0))),
        };
        let Some(ledger) = plane_state.ledger.as_mut() else {
            // Without a budget a window closes only to be opened again.
            return if phase == Phase::Closed {
                Decision::Open
            } else {
                Decision::Stay
            };
        };
        match (ledger.turn(facts, phase), phase) {
            (decision, _) if share.scale > 0.0 => decision,
            (_, Phase::Open(_)) => Decision::Close,
            _ => Decision::Stay,
        }
    };
    // Each plane is paid for before those that follow.
    let mut before = always;
    Plane::ALL.map(|plane| {
        let part = split.windows[plane as usize];
        let mut facts = facts(before, part);
        if plane == Plane::Sockets {
            // Requests are seen in its own windows only, and it is cheap.
            facts.measured = facts.measured.map(|_| 1.0);
        }
        let decision = ask(watched.plane_mut(plane), facts, part);
        before += part.cost;
        decision
    })
}
