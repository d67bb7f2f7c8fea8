//! Keeps the cost of observing within the budget: measures what hits cost each target (`overhead`), asks the ledgers (`budget`), and opens and
//! closes windows accordingly (`Planes`).

use std::time::Duration;

use agent_common::hits::HitKind;
use aya::maps::MapError;

use super::{Failures, PendingInterval, PlaneState, Planes, TargetTable, Watched, Window};
use crate::{
    attach::plan,
    budget::{Bystander, Decision, Ledger, Limits, Plane},
    capacity::Host,
    clock,
    model::MonoNs,
    overhead::Meter,
};
use coordination::{blocking_pids, coordinate_hooks, waits_for_hooks};
use decision::{Decisions, Share};

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

    /// Opens the accounts of a new target, whose windows attach `probes`.
    pub(super) fn start(&mut self, watched: &mut Watched, probes: Vec<plan::Probe>) -> Result<(), MapError> {
        self.meter.clear(watched.known.index)?;
        let (since, seed) = (watched.target.since, u64::from(watched.target.id));
        let hooks = self.limits.map(|limits| {
            let limits = limits.of_hooks(watched.benefit.reserved());
            Ledger::new(limits, MIN_HOOKS_WINDOW, seed)
        });
        watched.hooks = PlaneState::new(Plane::Hooks, [].into(), hooks, since);
        let of_probes = self.limits.map(|limits| Ledger::new(limits, MIN_PROBES_WINDOW, seed));
        watched.probes = PlaneState::new(Plane::Probes, probes.into(), of_probes, since);
        watched.bystander = self.limits.map(|limits| Bystander::new(limits, MIN_HOOKS_WINDOW, seed));
        watched.overhead.updated = since;
        watched.overhead.cpu_clock = watched.target.process.cpu_time().unwrap_or_default();
        Ok(())
    }

    /// One turn. No window of a plane opens before its pending interval is extrapolated.
    pub(super) fn turn(&mut self, targets: &mut TargetTable, planes: &mut Planes) -> Vec<PendingInterval> {
        planes.hooks().update();
        let now = clock::now();
        self.host.turn(now);
        let decisions = self.decide(targets, planes, now);
        self.measure(targets, planes);
        let blocking = blocking_pids(targets.iter());
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
        let hooks_attached = planes.hooks().is_attached();
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
            let (busy, tail) = self.tail(watched);
            let share = Share {
                scale: self.budget_scale * scales.get(&watched.target.id).copied().unwrap_or(1.0),
                busy,
                tail,
            };
            let decided = decision::decide(watched, &self.meter.costs, hits, now, share, hooks_attached);
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

/// Opens and closes the windows of a target. `blocking` are the targets whose budget does not pay for windows of others.
fn apply(
    watched: &mut Watched,
    planes: &mut Planes,
    decisions: Decisions,
    blocking: &[u32],
    now: MonoNs,
) -> impl Iterator<Item = PendingInterval> + use<> {
    let hooks = coordinate_hooks(watched, decisions.hooks, blocking, now);
    let was_cut = planes.cut(watched, Plane::Hooks).is_some();
    let of_hooks = match if was_cut { Decision::Close } else { hooks } {
        Decision::Stay => None,
        Decision::Open => {
            planes.open_hooks(watched);
            None
        }
        Decision::Close => planes.close_hooks(watched),
    };
    let retry = is_retry_due(watched, now);
    let ends = retry && watched.probes.window.is_open() || planes.cut(watched, Plane::Probes).is_some();
    let probes = if ends { Decision::Close } else { decisions.probes };
    // A window that opens tries all probes anyway.
    let retry = retry && probes != Decision::Open;
    watched.always.attempts += u32::from(retry);
    let of_probes = match probes {
        Decision::Open => {
            if !waits_for_hooks(watched, now) {
                planes.open_probes(watched);
            }
            None
        }
        Decision::Stay => {
            if retry {
                planes.retry_always(watched);
            }
            None
        }
        Decision::Close => planes.close_probes(watched),
    };
    of_hooks.into_iter().chain(of_probes)
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

fn has_young_window(watched: &Watched, now: MonoNs) -> bool {
    watched.hooks.is_young(now, LONG) || watched.probes.is_young(now, LONG)
}
