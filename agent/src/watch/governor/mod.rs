//! Keeps the cost of observing within the budget: measures what hits cost each target (`overhead`), asks the ledgers (`budget`), and opens and
//! closes windows accordingly (`Planes`).

use std::time::Duration;

use agent_common::hits::HitKind;
use aya::maps::MapError;

use super::{Failures, PendingInterval, PlaneState, Planes, TargetTable, Watched, Window, planes::HOOKED};
use crate::{
    budget::{Bystander, Decision, Ledger, Limits, Plane},
    capacity::{Capacity, Host},
    clock,
    model::MonoNs,
    overhead::Meter,
    signals::plan::PlannedProbes,
};
use coordination::{blocking_pids, coordinate_hooks, waits_for_threads};
use decision::Decisions;

mod coordination;
mod decision;
mod division;

/// The interval of a window that is open for so long ends although the window stays open, ns.
pub const LONG: u64 = 1_000_000_000;
/// The shortest windows: of probes, each of which takes some 10 ms to attach; of hooks, long enough for most requests.
const MIN_PROBES_WINDOW: Duration = Duration::from_millis(50);
const MIN_HOOKS_WINDOW: Duration = Duration::from_millis(250);
/// How long until probes that could not be attached are tried again, ns.
const RETRY: u64 = 20_000_000_000;
/// How often that time is doubled: to some 90 minutes.
const RETRY_DOUBLINGS: u32 = 8;
/// How often the governor handles a target, ns. A target with a window that is younger than [`LONG`] it handles at every turn.
const TARGET_PERIOD: u64 = 100_000_000;
/// How long until the next turn: while a window is young, and otherwise. Each turn wakes the agent on a core that services need.
const TURN_SOON: Duration = Duration::from_millis(10);
const TURN_LATER: Duration = Duration::from_millis(50);

/// Governs the windows of all targets.
pub struct Governor {
    /// None without a budget.
    limits: Option<Limits>,
    /// What all targets together may cost, cores.
    host_limit: Option<f64>,
    /// How busy the host's cores are.
    host: Host,
    meter: Meter,
    /// The part of the budget that the agent's own limits leave. At 0 no process becomes a target.
    pub(super) budget_scale: f64,
}

impl Governor {
    pub(super) fn new(limits: Option<Limits>, host_limit: Option<f64>, meter: Meter) -> Self {
        Self {
            limits,
            host_limit,
            host: Host::default(),
            meter,
            budget_scale: 1.0,
        }
    }

    /// Opens the accounts of a new target, whose windows attach these `probes`.
    pub(super) fn start(&mut self, watched: &mut Watched, probes: &PlannedProbes) -> Result<(), MapError> {
        self.meter.clear(watched.known.index)?;
        let (since, seed) = (watched.target.since, u64::from(watched.target.id));
        watched.capacity = Capacity::of(watched.target.process.pid);
        let limits = self.limits_of(watched);
        // Without probes nothing is kept for them.
        let reserved = if probes.windowed.is_empty() {
            0.0
        } else {
            watched.benefit.reserved()
        };
        let ledger = |plane, shortest| limits.map(|limits| Ledger::new(limits.of(plane, reserved), shortest, seed));
        let hooks = |plane| PlaneState::new(plane, [].into(), ledger(plane, MIN_HOOKS_WINDOW), since);
        (watched.sockets, watched.threads) = (hooks(Plane::Sockets), hooks(Plane::Threads));
        let probed =
            |plane, probes: &[_]| PlaneState::new(plane, probes.into(), ledger(plane, MIN_PROBES_WINDOW), since);
        watched.sample = probed(Plane::Sample, &probes.sample);
        watched.probes = probed(Plane::Probes, &probes.windowed);
        watched.bystander = limits.map(|limits| Bystander::new(limits, MIN_HOOKS_WINDOW, seed));
        watched.overhead.updated = since;
        watched.overhead.cpu_clock = watched.target.process.cpu_time().unwrap_or_default();
        Ok(())
    }

    /// The limits of a target; None without a budget.
    fn limits_of(&self, watched: &Watched) -> Option<Limits> {
        self.limits.map(|limits| limits.within(watched.capacity.quota()))
    }

    /// One turn. No window of a plane opens before its pending interval is extrapolated.
    pub(super) fn turn(&mut self, targets: &mut TargetTable, planes: &mut Planes) -> Vec<PendingInterval> {
        planes.update_hooks();
        let now = clock::now();
        self.host.turn(now);
        let decisions = self.decide(targets, planes, now);
        self.measure(targets, planes);
        let blocking = HOOKED.map(|plane| blocking_pids(targets.iter(), plane));
        let mut pending = Vec::new();
        for (pid, decisions) in decisions {
            if let Some(watched) = targets.by_pid_mut(pid) {
                pending.extend(apply(watched, planes, decisions, &blocking, now));
                planes.update_allowance(watched);
            }
        }
        pending
    }

    /// What the ledgers decide for each target whose turn it is, by pid.
    fn decide(&mut self, targets: &mut TargetTable, planes: &mut Planes, now: MonoNs) -> Vec<(u32, Decisions)> {
        let scales = self.scales(targets);
        let attached = HOOKED.map(|plane| planes.are_attached(plane));
        let mut decisions = Vec::new();
        for watched in targets.iter_mut() {
            if !has_young_window(watched, now) && now.0.saturating_sub(watched.overhead.updated.0) < TARGET_PERIOD {
                continue;
            }
            let hits = match self.meter.hits(watched.known.index) {
                Ok(hits) => hits,
                Err(error) => {
                    planes.note(Err(error));
                    continue;
                }
            };
            self.limit_first(watched);
            let scale = self.budget_scale * scales.get(&watched.target.id).copied().unwrap_or(1.0);
            let share = self.share(watched, scale);
            let decided = decision::decide(watched, &self.meter.costs, hits, now, share, attached);
            decisions.push((watched.target.process.pid, decided));
        }
        decisions
    }

    /// Measures what hits cost.
    fn measure(&mut self, targets: &TargetTable, planes: &Planes) {
        let mut all = [0; HitKind::COUNT];
        for watched in targets.iter() {
            for (all, hits) in all.iter_mut().zip(&watched.overhead.hits) {
                *all += hits;
            }
        }
        let is_open = targets.iter().any(Watched::has_open_window);
        if let Some(mut object) = planes.windows.try_object() {
            self.meter.turn(&mut object, &all, is_open);
        }
    }

    /// Adds what a target that ends has cost since the last turn.
    pub(super) fn add_last_hits(&self, watched: &mut Watched) -> Result<(), MapError> {
        let hits = self.meter.hits(watched.known.index)?;
        watched.overhead.add(hits, &self.meter.costs);
        Ok(())
    }

    /// How long until the next turn; `soon` is whether anything else waits for it.
    pub(super) fn pace(&self, targets: &TargetTable, soon: bool) -> Duration {
        let now = clock::now();
        if soon || targets.iter().any(|watched| has_young_window(watched, now)) {
            TURN_SOON
        } else {
            TURN_LATER
        }
    }
}

/// Opens and closes the windows of a target. `blocking` are, by plane of hooks, the targets whose budget does not pay for windows of others.
fn apply(
    watched: &mut Watched,
    planes: &mut Planes,
    decisions: Decisions,
    blocking: &[Vec<u32>; HOOKED.len()],
    now: MonoNs,
) -> impl Iterator<Item = PendingInterval> + use<> {
    let mut pending = Vec::new();
    for (plane, blocking) in HOOKED.into_iter().zip(blocking) {
        let decision = coordinate_hooks(watched, plane, decisions[plane as usize], blocking, now);
        let was_cut = planes.cut(watched, plane).is_some();
        match if was_cut { Decision::Close } else { decision } {
            Decision::Stay => {}
            Decision::Open => planes.open_hooks(watched, plane),
            Decision::Close => pending.extend(planes.close_hooks(watched, plane)),
        }
    }
    match decisions[Plane::Sample as usize] {
        _ if planes.cut(watched, Plane::Sample).is_some() || is_sample_retry_due(watched, now) => {
            pending.extend(planes.close_probes(watched, Plane::Sample));
        }
        Decision::Open => planes.open_probes(watched, Plane::Sample),
        Decision::Close => pending.extend(planes.close_probes(watched, Plane::Sample)),
        Decision::Stay => {}
    }
    let retry = is_retry_due(watched, now);
    let ends = retry && watched.probes.window.is_open() || planes.cut(watched, Plane::Probes).is_some();
    let probes = if ends {
        Decision::Close
    } else {
        decisions[Plane::Probes as usize]
    };
    // A window that opens tries all probes anyway.
    let retry = retry && probes != Decision::Open;
    watched.always.attempts += u32::from(retry);
    match probes {
        Decision::Open => {
            if !waits_for_threads(watched, now) {
                planes.open_probes(watched, Plane::Probes);
            }
        }
        Decision::Stay => {
            if retry {
                planes.retry_always(watched);
            }
        }
        Decision::Close => pending.extend(planes.close_probes(watched, Plane::Probes)),
    }
    pending.into_iter()
}

/// Whether probes that could not be attached are to be tried again now. While a window of the probes is open, that takes a new window, for all
/// of them. While none is open, it is done for those that are always attached.
fn is_retry_due(watched: &Watched, now: MonoNs) -> bool {
    let Failures { always, probes, .. } = &watched.failures;
    let has_failures = match watched.probes.window {
        Window::Open { .. } => !always.is_empty() || !probes.is_empty(),
        Window::None | Window::Closed => !always.is_empty(),
        Window::Busy => false,
    };
    // The attempts become rarer: if a window closes for one, nothing is seen meanwhile.
    let wait = RETRY << watched.always.attempts.min(RETRY_DOUBLINGS);
    has_failures && now.0.saturating_sub(watched.always.last_attempt.0) >= wait
}

/// The same for the sample, whose window stays open otherwise.
fn is_sample_retry_due(watched: &Watched, now: MonoNs) -> bool {
    let wait = RETRY << watched.sample.attempts.min(RETRY_DOUBLINGS);
    match watched.sample.window {
        Window::Open { since } => !watched.failures.sample.is_empty() && now.0.saturating_sub(since.0) >= wait,
        _ => false,
    }
}

fn has_young_window(watched: &Watched, now: MonoNs) -> bool {
    watched
        .planes()
        .iter()
        .any(|plane_state| plane_state.is_young(now, LONG))
}
