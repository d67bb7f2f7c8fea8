//! Observes the targets that the life cycle admits. In come processes to admit and to retire, finished changes of hooks and probes, and turns of
//! the governor; out go targets with their state, and intervals whose counts are extrapolated.
//!
//! [`Watch`] only connects the parts: `targets` has the table of targets, `planner` prepares a process to become one, `planes` opens and closes
//! windows in the kernel, and `governor` decides when.

use std::{collections::HashSet, sync::Arc, sync::MutexGuard, time::Duration};

use anyhow::Context as _;
use log::{debug, warn};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    aggregate::store::Reading,
    attach::{kernel::HookState, maps::TargetMaps, uprobe::Object, windows::Done},
    budget::{Limits, Plane},
    clock,
    discover::{Process, Selector},
    inspect::{Image, InspectError},
    lifecycle::{Admission, EndReason, TargetInfo, Targets},
    looks::Looks,
    overhead::Meter,
    signal,
    signals::{self, Thresholds},
};
use governor::Governor;
use planes::{PROBED, Planes};
use planner::{Planner, Prepared};

mod exit;
mod failures;
mod governor;
mod hooks;
mod overhead;
mod plane_state;
mod planes;
mod planner;
mod targets;
mod watched;

pub use failures::Failures;
pub use governor::LONG;
pub use overhead::Overhead;
pub use plane_state::{Bound, PendingInterval, PlaneState, Window};
pub use targets::{Ended, Indices, TargetTable};
pub use watched::{AlwaysAttached, Watched};

/// How long the end of a run waits for changes of probes that run.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

/// The user's choices.
#[derive(Clone)]
pub struct Options {
    pub selector: Selector,
    /// Signals that are left out.
    pub without: Vec<String>,
    pub thresholds: Thresholds,
    /// None: windows are always open, whatever that costs.
    pub limits: Option<Limits>,
    /// What all targets together may cost, cores.
    pub host: Option<f64>,
    /// Has targets looked at.
    pub looks: Arc<Looks>,
}

/// The targets, and the parts that observe them.
pub struct Watch {
    pub targets: TargetTable,
    planner: Planner,
    planes: Planes,
    governor: Governor,
    /// Intervals whose counts are to be extrapolated with the next reading.
    pending: Vec<PendingInterval>,
    /// Finished changes of hooks and probes, for [`Self::on_done`].
    pub done: mpsc::Receiver<Done>,
    watch_to_pipeline: mpsc::Sender<u32>,
}

impl Watch {
    /// No target yet. `watch_to_pipeline` gets the ids of targets whose process ends.
    pub fn new(
        object: Object,
        maps: TargetMaps,
        meter: Meter,
        hooks: Vec<HookState>,
        options: Options,
        watch_to_pipeline: mpsc::Sender<u32>,
    ) -> Self {
        let without_uprobes = object.without_uprobes().map(str::to_owned);
        let (planes, done) = Planes::new(object, maps, meter.counts(), hooks, options.limits.is_none());
        Self {
            targets: TargetTable::default(),
            planner: Planner::new(&options, without_uprobes),
            planes,
            governor: Governor::new(options.limits, options.host, meter),
            pending: Vec::new(),
            done,
            watch_to_pipeline,
        }
    }

    /// All processes were scanned: if there is no target, no hook stays attached.
    pub fn on_first_scan(&mut self) {
        self.planes.update_hooks();
    }

    /// Takes over a finished change of hooks or probes.
    pub fn on_done(&mut self, done: Done) {
        self.planes.on_done(&mut self.targets, done);
    }

    /// A turn of the governor.
    pub fn govern(&mut self) {
        self.pending
            .extend(self.governor.turn(&mut self.targets, &mut self.planes));
    }

    /// How long until the governor's next turn; `soon` is whether anything else waits for it.
    pub fn pace(&self, soon: bool) -> Duration {
        self.governor.pace(&self.targets, soon)
    }

    /// Sets the part of the budget that the agent's own limits leave. At 0 no process becomes a target.
    pub fn set_budget_scale(&mut self, scale: f64) {
        self.governor.budget_scale = scale;
    }

    /// Whether counts wait to be extrapolated.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ids whose entries a reading that is taken now must keep. Ends the intervals of windows that have been open for long; at the end of a
    /// run (`is_last`) those of all windows.
    pub fn prepare_reading(&mut self, is_last: bool) -> HashSet<u32> {
        let (now, age) = (clock::now(), if is_last { 0 } else { LONG });
        for watched in self.targets.iter_mut() {
            let (id, work) = (watched.target.id, self.planes.work(watched));
            for plane in Plane::ALL {
                let ended = watched.plane_mut(plane).end_long_interval(id, now, age, work);
                self.pending.extend(ended);
            }
        }
        self.targets.kept_ids(clock::now(), is_last)
    }

    /// Extrapolates the counts of a reading that was taken after [`Self::prepare_reading`].
    pub fn extrapolate(&mut self, reading: &mut Reading) {
        for PendingInterval {
            target_id,
            plane,
            interval,
        } in std::mem::take(&mut self.pending)
        {
            let Some(watched) = self.targets.by_id(target_id) else {
                continue;
            };
            let plane_state = watched.plane_mut(plane);
            let events = plane_state.extrapolator.commit(reading, target_id, interval);
            plane_state.is_pending = false;
            debug!(
                "target {target_id}: a window of {plane:?}, {:.1} ms that stand for {:.1} ms: {events} events, {:.0}/s, {:?} of {:?} starts",
                interval.open / 1e6,
                interval.elapsed / 1e6,
                events as f64 * 1e9 / interval.open,
                interval.open_work.starts,
                interval.work.starts,
            );
            if plane == Plane::Probes {
                self.governor.divide(watched);
            }
        }
        for watched in self.targets.with_ended() {
            if !watched.planes().iter().any(|plane_state| plane_state.extrapolated) {
                continue;
            }
            watched.compare_latency(reading);
            let (id, work) = (watched.target.id, self.planes.work(watched));
            for plane in Plane::ALL {
                let plane_state = watched.plane_mut(plane);
                if plane_state.extrapolated {
                    let (work, elapsed) = plane_state.since_interval(work, reading.time);
                    plane_state.extrapolator.apply(reading, id, work, elapsed);
                }
            }
        }
    }

    /// Ends a target. False if it ended before.
    pub fn retire(&mut self, id: u32, reason: EndReason) -> bool {
        let Some(watched) = self.targets.remove(id) else {
            return false;
        };
        self.end(watched, reason);
        true
    }

    /// Ends a target that is not in the table any more, or not yet.
    fn end(&mut self, mut watched: Watched, reason: EndReason) {
        if let Some(end) = &watched.end {
            // The process may live on, as another program.
            end.abort();
        }
        self.planes.remove(&mut watched, reason);
        // Without them the hits of the last turn are reported.
        self.planes.note(self.governor.add_last_hits(&mut watched));
        self.planes.read_map_use(&mut watched);
        let (now, work) = (clock::now(), self.planes.work(&watched));
        for plane in Plane::ALL {
            let (id, cut) = (watched.target.id, self.planes.cut(&watched, plane));
            self.pending.extend(watched.plane_mut(plane).end(id, cut, now, work));
        }
        self.targets.add_ended(watched, reason, now);
    }

    /// Takes out targets that ended and whose ids are `gone` from the last reading, and removes their entries from the kernel's maps.
    pub fn take_ended(&mut self, gone: impl Fn(u32) -> bool) -> Vec<Ended> {
        let ended = self.targets.take_ended(&gone);
        if !ended.is_empty() {
            self.planes.forget(gone);
        }
        // Only now: kernel programs use the entry at an index until then.
        for ended in &ended {
            self.targets.free_index(ended);
        }
        ended
    }

    /// Removes entries of the kernel's maps that nothing will read any more. It walks over all of them, so it should be called rarely.
    pub fn sweep(&mut self) {
        self.planes.sweep(&self.targets);
    }

    /// Reads how much of the kernel's maps each target uses.
    pub fn read_map_use(&mut self) {
        for watched in self.targets.iter_mut() {
            self.planes.read_map_use(watched);
        }
    }

    /// How often a map of the kernel side could not be read or changed since the last call, and the last reason.
    pub fn map_failures(&self) -> Option<(u64, String)> {
        self.planes.take_failures()
    }

    /// The loaded object; None while a window is being opened.
    pub fn try_object(&self) -> Option<MutexGuard<'_, Object>> {
        self.planes.windows.try_object()
    }

    /// The loaded object; waits while a window is being opened.
    pub fn object(&self) -> MutexGuard<'_, Object> {
        self.planes.windows.object()
    }

    /// Whether the user requested the process of a target: by pid, executable or name.
    pub fn is_requested(&self, watched: &Watched) -> bool {
        self.planner.is_requested(&watched.target.process)
    }

    /// Whether the user does not get everything that was requested: a signal of a requested process is off, or, if no process was requested,
    /// each target has a signal that is off.
    pub fn is_dark(&self) -> bool {
        let is_dark = |watched: &Watched| signal::is_dark(&watched.state.states);
        let mut targets = self.targets.iter();
        if self.planner.has_requests() {
            return targets.any(|watched| self.is_requested(watched) && is_dark(watched));
        }
        !self.targets.is_empty() && targets.all(is_dark)
    }

    /// Detaches everything, and waits for it.
    pub async fn close(mut self) {
        let is_busy = |watched: &Watched| PROBED.iter().any(|plane| watched.plane(*plane).window == Window::Busy);
        let until = Instant::now() + CLOSE_LIMIT;
        while self.targets.iter().any(is_busy) {
            let Ok(Some(done)) = timeout_at(until, self.done.recv()).await else {
                warn!(
                    "not waiting any longer for probes that are being attached or detached: the kernel detaches them when this process ends"
                );
                break;
            };
            self.on_done(done);
        }
        let planes = &self.planes;
        let tasks: Vec<_> = self
            .targets
            .iter_mut()
            .flat_map(|watched| planes.detach_all(watched))
            .collect();
        for task in tasks {
            // After a panic there would be nothing left to undo.
            let _ = task.await;
        }
    }
}

impl Targets for Watch {
    fn target(&self, pid: u32) -> Option<TargetInfo<'_>> {
        self.targets.by_pid(pid).map(|watched| TargetInfo {
            id: watched.target.id,
            process: &watched.target.process,
            since: watched.target.since,
        })
    }

    fn is_detaching(&mut self, pid: u32) -> bool {
        self.planes.is_detaching(pid)
    }

    fn admit(
        &mut self,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
        wait_for_start: bool,
    ) -> anyhow::Result<Admission> {
        let index = self.targets.next_index(self.governor.budget_scale)?;
        let Some(candidate) = self.planner.prepare(process, image, error, wait_for_start)? else {
            return Ok(Admission::NotStarted);
        };
        let id = self.targets.new_id();
        let hooks = self.planes.hook_states();
        let Prepared {
            mut watched,
            plan,
            pidfd,
            without_runtime,
        } = self.planner.target(candidate, id, index, hooks)?;
        let probes = signals::plan::divide(&plan.probes);
        self.governor
            .start(&mut watched, &probes)
            .context("cannot reset the target's hit counts")?;
        self.targets.take_index();
        if let Err(error) = self.planes.admit(&mut watched, &plan, &probes.always) {
            self.end(watched, EndReason::AttachFailed);
            return Err(error);
        }
        watched.log_if_complete();
        for plane in PROBED {
            if !watched.plane(plane).probes.is_empty() {
                self.planes.open_probes(&mut watched, plane);
            }
        }
        watched.end = Some(exit::report(id, pidfd, self.watch_to_pipeline.clone()));
        self.targets.insert(watched);
        Ok(Admission::Admitted { without_runtime })
    }

    fn retire(&mut self, id: u32, reason: EndReason) {
        Self::retire(self, id, reason);
    }
}
