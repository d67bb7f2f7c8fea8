//! A target with everything that the agent keeps about it: who it is, what its signals keep, how it is observed and what that costs.

use std::sync::Arc;

use agent_common::{
    histogram::Series,
    hits::{HitKind, Hits},
    target::{INSIDE, Refused, Usage},
};
use log::{info, warn};
use tokio::task::AbortHandle;

use super::{Failures, Overhead, PlaneState};
use crate::{
    aggregate::store::Reading,
    attach::{
        plan::{Failure, Probe},
        uprobe::{Links, LoadedExe, Outcome},
    },
    budget::{Benefit, Bystander, Latency, Plane, Work},
    capacity::Capacity,
    clock,
    findings::{Judge, facts::Open},
    model::MonoNs,
    signals::{self, State},
    target::Target,
};

/// An observed process.
pub struct Watched {
    pub target: Target,
    /// What its signals keep.
    pub state: State,
    /// What it may use; read when a window is opened.
    pub capacity: Capacity,
    /// Waits for the end of its process.
    pub end: Option<AbortHandle>,
    /// What could not be attached or read at the last attempt.
    pub failures: Failures,
    /// Probes that are attached outside windows too.
    pub always: AlwaysAttached,
    /// What the kernel programs know of it.
    pub known: agent_common::target::Target,
    /// Plane 1a: the kernel's hooks on sockets.
    pub sockets: PlaneState,
    /// Plane 2s: the probe of the runtime's own sample.
    pub sample: PlaneState,
    /// Plane 1b: the kernel's hooks on threads.
    pub threads: PlaneState,
    /// What windows of other targets' hooks may cost it; None without a budget.
    pub bystander: Option<Bystander>,
    /// Plane 2: probes.
    pub probes: PlaneState,
    /// Says which part of the budget is reserved for plane 2.
    pub benefit: Benefit,
    /// Whether windows make its requests slower, and when that was last brought up to date.
    pub latency: Latency,
    pub latency_read: MonoNs,
    pub overhead: Overhead,
    /// Its entries in the kernel's maps that all targets share, when metrics were last made.
    pub usage: Usage,
    /// What it could not have of those of them that are cleared, likewise.
    pub refused: Refused,
    /// Places of missing probes without which the kernel programs see less of some types of tasks, as these programs know it.
    pub missing_places: Vec<u64>,
    /// What its figures mean.
    pub findings: Judge,
}

/// Probes that are attached as long as a process is a target.
pub struct AlwaysAttached {
    pub links: Links,
    /// Those that could not be attached yet.
    pub missing: Vec<Probe>,
    /// Attempts since everything could be attached, and when the last was.
    pub attempts: u32,
    pub last_attempt: MonoNs,
}

impl Watched {
    /// Nothing is attached yet.
    pub fn new(target: Target, state: State) -> Self {
        let since = target.since;
        Self {
            target,
            state,
            capacity: Capacity::default(),
            end: None,
            failures: Failures::default(),
            always: AlwaysAttached {
                links: Links::default(),
                missing: Vec::new(),
                attempts: 0,
                last_attempt: since,
            },
            known: agent_common::target::Target::default(),
            sockets: PlaneState::new(Plane::Sockets, Arc::from([]), None, since),
            sample: PlaneState::new(Plane::Sample, Arc::from([]), None, since),
            threads: PlaneState::new(Plane::Threads, Arc::from([]), None, since),
            bystander: None,
            probes: PlaneState::new(Plane::Probes, Arc::from([]), None, since),
            benefit: Benefit::default(),
            latency: Latency::default(),
            latency_read: since,
            overhead: Overhead::default(),
            usage: Usage::default(),
            refused: Refused::default(),
            missing_places: Vec::new(),
            findings: Judge::default(),
        }
    }

    /// By plane, in order.
    pub fn planes(&self) -> [&PlaneState; Plane::COUNT] {
        Plane::ALL.map(|plane| self.plane(plane))
    }

    pub fn plane(&self, plane: Plane) -> &PlaneState {
        match plane {
            Plane::Sockets => &self.sockets,
            Plane::Sample => &self.sample,
            Plane::Threads => &self.threads,
            Plane::Probes => &self.probes,
        }
    }

    pub fn plane_mut(&mut self, plane: Plane) -> &mut PlaneState {
        match plane {
            Plane::Sockets => &mut self.sockets,
            Plane::Sample => &mut self.sample,
            Plane::Threads => &mut self.threads,
            Plane::Probes => &mut self.probes,
        }
    }

    /// Takes note of what is known before anything was counted, once something is.
    pub fn begin_findings(&mut self) {
        if self.findings.is_empty() {
            let nothing = Reading {
                time: clock::now(),
                ..Reading::default()
            };
            self.look(&nothing);
        }
    }

    /// Judges what the figures until `reading` mean.
    pub fn judge(&mut self, reading: &Reading) {
        self.look(reading);
        self.findings.judge(&self.state.states, self.target.process.pid);
    }

    fn look(&mut self, reading: &Reading) {
        let open = self.planes().map(|plane_state| {
            let (open, time) = plane_state.times(reading.time);
            Open { open, time }
        });
        self.findings.look(&self.target, &self.state, reading, open);
    }

    /// Where its probes go.
    pub(super) fn loaded_exe(&self) -> LoadedExe {
        LoadedExe::of(&self.target.process, self.target.bias)
    }

    /// Updates how much of each signal is available.
    pub fn restate(&mut self) {
        self.state.restate(self.failures.all());
    }

    /// Replaces one kind of failures by those of the last attempt, logs what changed, and updates how much of each signal is available.
    pub(super) fn set_failures(&mut self, of: fn(&mut Failures) -> &mut Vec<Failure>, now: Vec<Failure>) {
        let pid = self.target.process.pid;
        let before = std::mem::replace(of(&mut self.failures), now);
        let now = &*of(&mut self.failures);
        for Failure { signal, reason, .. } in now.iter().filter(|failure| !before.contains(failure)) {
            warn!("process {pid}: {signal}: {reason}");
        }
        for Failure { signal, .. } in before.iter().filter(|failure| !now.contains(failure)) {
            info!("process {pid}: {signal}: what was missing is available now");
        }
        self.restate();
    }

    /// Takes something away from a signal for as long as the target exists.
    pub(super) fn lessen(&mut self, Failure { signal, reason, .. }: &Failure) {
        warn!("process {}: {signal}: {reason}", self.target.process.pid);
        let states = self.state.planned.iter_mut();
        for state in states.filter(|state| state.signal == *signal) {
            state.coverage.lessen(reason);
        }
        self.restate();
    }

    /// Takes over the outcome of another attempt to attach probes that are always attached and were missing, if there were any.
    pub(super) fn add_always(&mut self, always: Outcome) {
        self.always.last_attempt = clock::now();
        if !self.always.missing.is_empty() && (always.failures.is_empty() || self.target.process.is_alive()) {
            self.always.links.extend(always.links);
            self.always.missing = always.missing;
            self.set_failures(|failures| &mut failures.always, always.failures);
        }
        if self.failures.always.is_empty() && self.failures.probes.is_empty() {
            self.always.attempts = 0;
        }
    }

    /// Compares the requests of a reading, as the kernel counted them, that ended in windows with the others.
    pub(super) fn compare_latency(&mut self, reading: &Reading) {
        let of = |series| reading.whole(self.target.id, series);
        let (all, inside) = (of(Series::ServerRequest), of(Series::RequestInside));
        let elapsed = reading.time.0.saturating_sub(self.latency_read.0) as f64 / 1e9;
        self.latency.note(all, inside, elapsed);
        self.latency_read = reading.time;
    }

    /// Tells the kernel programs whether a window is open that is not always open, so that they count requests that end in it apart. Sockets are left
    /// out: requests are seen in their windows only.
    pub(super) fn mark_inside(&mut self) {
        let is_open = |plane: &Plane| self.known.flags & plane.open_flag() != 0 && self.plane(*plane).extrapolated;
        let is_inside = [Plane::Sample, Plane::Threads, Plane::Probes].iter().any(is_open);
        self.known.flags &= !INSIDE;
        self.known.flags |= if is_inside { INSIDE } else { 0 };
    }

    /// What observing it would cost if no plane had windows: cores, and as a share of its own CPU time; None where that is not known, or where all
    /// planes are always open.
    pub fn full_cost(&self) -> Option<(f64, f64)> {
        let planes = self.planes();
        let ledgers = planes.iter().filter(|plane_state| plane_state.extrapolated);
        let windowed: Vec<_> = ledgers.filter_map(|plane_state| plane_state.ledger.as_ref()).collect();
        let load = windowed.first()?.load();
        let always: f64 = planes
            .iter()
            .filter(|plane_state| !plane_state.extrapolated)
            .filter_map(|plane_state| Some(plane_state.ledger.as_ref()?.recent()))
            .sum();
        let cores = always + windowed.iter().map(|ledger| ledger.full()).sum::<f64>();
        (load > 0.0).then_some((cores, cores / load))
    }

    /// What it did so far. `hits` are those of its probes and hooks until now.
    pub(super) fn work(&self, hits: Option<Hits>) -> Work {
        let Overhead {
            cpu,
            cpu_clock,
            by_kind,
            ..
        } = &self.overhead;
        let now = self.target.process.cpu_time().unwrap_or(*cpu_clock);
        let cost: f64 = by_kind.iter().sum();
        // Where reads of its memory do not return, it is not asked.
        let answers = self.failures.memory.is_empty();
        let starts = answers.then(|| self.state.starts(self.target.process.pid)).flatten();
        // In windows they do not see all.
        let sees_all = self.sockets.window.is_open() && !self.sockets.extrapolated;
        Work {
            cpu: cpu + now.saturating_sub(*cpu_clock) as f64 - cost,
            cost,
            starts: starts.map(|starts| starts as f64),
            moved: hits
                .filter(|_| sees_all)
                .map(|hits| hits[HitKind::NetMoved as usize] as f64),
        }
    }

    /// Whether a window of any plane is open.
    pub(super) fn has_open_window(&self) -> bool {
        self.planes().iter().any(|plane_state| plane_state.window.is_open())
    }

    /// The plane that a signal depends on; None for what is always on.
    pub fn plane_of(&self, signal: &str) -> Option<&PlaneState> {
        let has = |plane_state: &&PlaneState| plane_state.probes.iter().any(|probe| probe.signal == signal);
        let probed = self.planes().into_iter().find(has);
        probed.or_else(|| signals::hooked_plane(signal).map(|plane| self.plane(plane)))
    }

    /// Logs that the target is observed, when all planes were opened for the first time.
    pub(super) fn log_if_complete(&self) {
        if self.planes().iter().any(|plane_state| !plane_state.is_complete()) {
            return;
        }
        info!(
            "watching {} (pid {}): {} probes",
            self.target.resource.get("service.name").unwrap_or_default(),
            self.target.process.pid,
            self.always.links.len() + self.sample.links.len() + self.probes.links.len()
        );
    }
}
