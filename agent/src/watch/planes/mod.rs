//! What the kernel does for targets: which processes its programs observe, and the windows of all planes. In come targets and the governor's
//! decisions; out go writes to the kernel's maps, and hooks and probes that are attached or detached.

use agent_common::hits::{HitKind, Hits, When};
use anyhow::Context as _;
use aya::maps::MapError;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    PendingInterval, TargetTable, Watched, Window,
    hooks::Hooks,
    plane_state::{Cut, HitsSoFar},
};
use crate::{
    attach::{
        kernel::{self, HookState},
        maps::TargetMaps,
        plan::{Plan, Probe},
        uprobe::Object,
        windows::{Done, Windows},
    },
    budget::{Plane, Work},
    discover::ProcessError,
    lifecycle::EndReason,
    model::MonoNs,
    overhead::HitCounts,
    signal::SignalState,
    signals,
};
use detaching::Detaching;
pub(super) use {hooks::HOOKED, probes::PROBED};

mod detaching;
mod hooks;
mod probes;
mod sweep;

/// The kernel side of all targets.
pub struct Planes {
    maps: TargetMaps,
    counts: HitCounts,
    /// How much of each hook's signal is available.
    hook_states: Vec<SignalState>,
    sockets: Hooks,
    threads: Hooks,
    pub(super) windows: Windows,
    detaching: Detaching,
}

impl Planes {
    /// No target yet. Finished changes come out of the receiver, for [`Self::on_done`]. With `always` the hooks stay attached.
    pub(super) fn new(
        object: Object,
        maps: TargetMaps,
        counts: HitCounts,
        mut hooks: Vec<HookState>,
        always: bool,
    ) -> (Self, mpsc::Receiver<Done>) {
        let (windows, done) = Windows::new(object);
        let attached = hooks.iter_mut().filter_map(|hook| hook.attached.take());
        let (sockets, threads) = attached.partition(|hook| signals::hooked_plane(hook.signal) == Some(Plane::Sockets));
        let planes = Self {
            maps,
            counts,
            hook_states: kernel::states(&hooks).collect(),
            sockets: Hooks::new(Plane::Sockets, sockets, always, windows.clone()),
            threads: Hooks::new(Plane::Threads, threads, always, windows.clone()),
            windows,
            detaching: Detaching::default(),
        };
        (planes, done)
    }

    /// How much of each hook's signal is available.
    pub(super) fn hook_states(&self) -> &[SignalState] {
        &self.hook_states
    }

    /// Whether a plane's hooks are attached, for any target, or change.
    pub(super) fn are_attached(&self, plane: Plane) -> bool {
        self.hooks_of(plane).is_some_and(Hooks::is_attached)
    }

    /// Makes a process a target of the kernel programs, and attaches the probes that are `always` attached. The programs must know a target
    /// before the first probe fires for it.
    pub(super) fn admit(&mut self, watched: &mut Watched, plan: &Plan, always: &[Probe]) -> anyhow::Result<()> {
        let missing = self.maps.set_plan(watched.target.id, plan);
        let image = watched.target.image.clone();
        let failures = image.map(|image| signals::plan::without_entries(&*image, plan, missing));
        for failure in failures.iter().flatten() {
            watched.lessen(failure);
        }
        for plane in HOOKED {
            watched.known.allowance[plane as usize] = watched.plane(plane).allowance(0);
        }
        let since = watched.target.since;
        for plane in HOOKED {
            if self.want_hooks(plane, watched.target.id) {
                watched.known.flags |= plane.open_flag();
                self.set_since(watched, plane, since);
                let work = self.work(watched);
                watched
                    .plane_mut(plane)
                    .open_window(false, since, work, HitsSoFar::default());
            } else {
                watched.plane_mut(plane).window = Window::Busy;
            }
        }
        self.maps
            .admit(watched.target.process.pid, &watched.known)
            .context("cannot write the target to the kernel maps")?;
        let outcome = self.windows.attach(&watched.loaded_exe(), always);
        anyhow::ensure!(
            outcome.failures.is_empty() || watched.target.process.is_alive(),
            ProcessError::Ended {
                pid: watched.target.process.pid
            }
        );
        (watched.always.links, watched.always.missing) = (outcome.links, outcome.missing);
        watched.failures.hooks = self.hook_failures();
        watched.set_failures(|failures| &mut failures.always, outcome.failures);
        Ok(())
    }

    /// Ends a target: the kernel programs ignore its process from now on, and its probes are detached.
    pub(super) fn remove(&mut self, watched: &mut Watched, reason: EndReason) {
        let (pid, id) = (watched.target.process.pid, watched.target.id);
        let outcome = self.maps.dismiss(pid);
        self.note(outcome);
        self.release_hooks(id);
        let tasks = self.detach_all(watched);
        if reason == EndReason::Exited {
            return;
        }
        for task in tasks {
            self.detaching.add(pid, task);
        }
        for plane in PROBED {
            if watched.plane(plane).window == Window::Busy {
                self.detaching.add_change(id, plane, pid);
            }
        }
    }

    /// Whether probes of a target that ended are still being detached from its process.
    pub(super) fn is_detaching(&mut self, pid: u32) -> bool {
        self.detaching.has(pid)
    }

    /// Removes all entries of targets that are `gone` from the kernel's maps.
    pub(super) fn forget(&mut self, gone: impl Fn(u32) -> bool) {
        self.maps.forget(gone);
    }

    /// Reads how much of the kernel's maps a target uses.
    pub(super) fn read_map_use(&self, watched: &mut Watched) {
        (watched.usage, watched.refused) = (self.maps.usage(&watched.known), self.maps.refused(&watched.known));
    }

    /// Takes over a finished change.
    pub(super) fn on_done(&mut self, targets: &mut TargetTable, done: Done) {
        match done {
            Done::Probes {
                target_id,
                plane,
                change,
            } => self.on_probes_done(targets, target_id, plane, change),
            Done::Hooks { plane, hooks } => self.on_hooks_done(targets, plane, hooks),
        }
    }

    /// Detaches all probes of a target.
    pub(super) fn detach_all(&self, watched: &mut Watched) -> [JoinHandle<()>; 3] {
        let Watched {
            always, sample, probes, ..
        } = watched;
        [&mut always.links, &mut sample.links, &mut probes.links]
            .map(|links| self.windows.detach(std::mem::take(links)))
    }

    /// What a target did so far.
    pub(super) fn work(&self, watched: &Watched) -> Work {
        watched.work(self.hits(watched))
    }

    fn hits(&self, watched: &Watched) -> Option<Hits> {
        self.counts.of(watched.known.index).ok()
    }

    /// When the kernel programs ended the window of a plane, because its allowance was used up.
    pub(super) fn cut(&self, watched: &Watched, plane: Plane) -> Option<Cut> {
        if !watched.plane(plane).window.is_open() {
            return None;
        }
        let cut = self.maps.cut(&watched.known, plane);
        let at = cut.inspect_err(|error| self.maps.note(error)).ok().flatten()?;
        let hits = self.hits_so_far(watched, plane, self.hits(watched));
        Some(watched.plane(plane).cut(MonoNs(at), hits))
    }

    /// Those of a plane, of all `hits` so far.
    fn hits_so_far(&self, watched: &Watched, plane: Plane, hits: Option<Hits>) -> HitsSoFar {
        let kinds = HitKind::ALL.into_iter().map(|(kind, _)| kind);
        let of_plane = kinds.filter(|kind| kind.plane() == plane && kind.when() == When::Windows && !kind.is_cold());
        HitsSoFar {
            counted: self.used(watched, plane),
            all: hits.map_or(0, |hits| of_plane.map(|kind| hits[kind as usize]).sum()),
        }
    }

    /// Updates how many hits the kernel programs may count in windows that are open.
    pub(super) fn update_allowance(&mut self, watched: &mut Watched) {
        let before = watched.known.allowance;
        for plane in Plane::ALL {
            if watched.plane(plane).window.is_open() {
                watched.known.allowance[plane as usize] = self.allowance(watched, plane);
            }
        }
        if watched.known.allowance != before {
            self.write(watched, 0);
        }
    }

    /// How often a map of the kernel side could not be read or changed since the last call, and the last reason.
    pub(super) fn take_failures(&self) -> Option<(u64, String)> {
        self.maps.failed()
    }

    /// Counts a map that could not be read or changed.
    pub(super) fn note(&self, outcome: Result<(), MapError>) {
        if let Err(error) = outcome {
            self.maps.note(&error);
        }
    }

    fn allowance(&self, watched: &Watched, plane: Plane) -> u64 {
        watched.plane(plane).allowance(self.used(watched, plane))
    }

    fn used(&self, watched: &Watched, plane: Plane) -> u64 {
        let used = self.maps.used(&watched.known, plane);
        used.inspect_err(|error| self.maps.note(error)).unwrap_or_default()
    }

    /// Opens the window of a plane now: writes to the kernel's maps what the programs must know.
    fn open(&mut self, watched: &mut Watched, plane: Plane, is_first: bool, now: MonoNs) {
        watched.known.allowance[plane as usize] = self.allowance(watched, plane);
        let flag = plane.open_flag();
        watched.known.flags |= flag;
        let hits = self.hits(watched);
        let (work, hits) = (watched.work(hits), self.hits_so_far(watched, plane, hits));
        watched.plane_mut(plane).open_window(is_first, now, work, hits);
        watched.mark_inside();
        let outcome = self.maps.clear_cutoff(&watched.known, plane);
        self.note(outcome);
        self.write(watched, flag);
    }

    /// Closes the window of a plane: the programs stop to count.
    fn close(&mut self, watched: &mut Watched, plane: Plane) -> Option<PendingInterval> {
        watched.known.flags &= !plane.open_flag();
        watched.mark_inside();
        self.write(watched, 0);
        let cut = self.cut(watched, plane);
        let (id, work) = (watched.target.id, self.work(watched));
        watched.plane_mut(plane).close_window(id, cut, work)
    }

    /// Writes what the kernel programs know of a target; `opened` is the flag of a window that opens with it.
    fn write(&mut self, watched: &Watched, opened: u32) {
        let outcome = self.maps.update(&watched.known, opened);
        self.note(outcome);
    }
}
