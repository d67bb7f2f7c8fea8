//! Windows of plane 1, the kernel's hooks: those on sockets (1a), and those on threads (1b).

use super::Planes;
use crate::{
    attach::{plan::Failure, windows},
    budget::Plane,
    capacity::Capacity,
    clock,
    model::MonoNs,
    signals,
    watch::{PendingInterval, TargetTable, Watched, Window, hooks::Hooks},
};

/// The planes of hooks.
pub(in crate::watch) const HOOKED: [Plane; 2] = [Plane::Sockets, Plane::Threads];

impl Planes {
    /// Opens a window of a plane of hooks, now or when they are attached.
    pub(in crate::watch) fn open_hooks(&mut self, watched: &mut Watched, plane: Plane) {
        watched.capacity = Capacity::of(watched.target.process.pid);
        if self.want_hooks(plane, watched.target.id) {
            self.open_attached_hooks(watched, plane);
        } else {
            watched.plane_mut(plane).window = Window::Busy;
        }
    }

    fn open_attached_hooks(&mut self, watched: &mut Watched, plane: Plane) {
        let now = clock::now();
        let is_first = !watched.plane(plane).was_opened();
        self.set_since(watched, plane, now);
        self.open(watched, plane, is_first, now);
        if is_first {
            watched.log_if_complete();
        }
    }

    /// Since when a window of a plane of hooks sees what happens.
    pub(super) fn set_since(&self, watched: &mut Watched, plane: Plane, since: MonoNs) {
        if plane == Plane::Sockets {
            watched.known.sockets_since = since.0;
        } else {
            watched.known.threads_since = since.0;
            watched.known.run_queue_since = self.run_queue_since(since);
        }
    }

    pub(in crate::watch) fn close_hooks(&mut self, watched: &mut Watched, plane: Plane) -> Option<PendingInterval> {
        let pending = self.close(watched, plane);
        if let Some(hooks) = self.hooks_mut(plane) {
            hooks.release(watched.target.id);
        }
        watched.plane_mut(plane).closed();
        pending
    }

    /// Attaches hooks that a target wants, detaches those that none wants, and tries those again that were refused.
    pub(in crate::watch) fn update_hooks(&mut self) {
        self.sockets.update();
        self.threads.update();
    }

    /// Opens the windows that waited for the hooks, and updates what is missing of them.
    pub(super) fn on_hooks_done(&mut self, targets: &mut TargetTable, plane: Plane, done: windows::Hooks) {
        let before = self.hook_failures();
        let ready = self.hooks_mut(plane).map(|hooks| hooks.on_done(done));
        for id in ready.into_iter().flatten() {
            if let Some(watched) = targets.active(id)
                && watched.plane(plane).window == Window::Busy
            {
                self.open_attached_hooks(watched, plane);
            }
        }
        let failures = self.hook_failures();
        if failures == before {
            return;
        }
        for watched in targets.iter_mut() {
            watched.failures.hooks.clone_from(&failures);
            watched.restate();
            self.follow_threads(watched);
        }
    }

    /// A target wants the hooks of a plane. True if it need not wait for them.
    pub(super) fn want_hooks(&mut self, plane: Plane, target_id: u32) -> bool {
        self.hooks_mut(plane).is_some_and(|hooks| hooks.want(target_id))
    }

    /// A target wants no hooks any more.
    pub(super) fn release_hooks(&mut self, target_id: u32) {
        self.sockets.release(target_id);
        self.threads.release(target_id);
    }

    /// Hooks that the kernel refused at the last attempt.
    pub(super) fn hook_failures(&self) -> Vec<Failure> {
        let mut failures = self.sockets.failures();
        failures.extend(self.threads.failures());
        failures
    }

    /// The hooks of a plane; None of a plane of probes, which has none.
    pub(super) fn hooks_of(&self, plane: Plane) -> Option<&Hooks> {
        match plane {
            Plane::Sockets => Some(&self.sockets),
            Plane::Threads => Some(&self.threads),
            Plane::Sample | Plane::Probes => None,
        }
    }

    fn hooks_mut(&mut self, plane: Plane) -> Option<&mut Hooks> {
        match plane {
            Plane::Sockets => Some(&mut self.sockets),
            Plane::Threads => Some(&mut self.threads),
            Plane::Sample | Plane::Probes => None,
        }
    }

    /// Since when threads are followed in a window of the hooks that opens `now`; 0 while they are not.
    fn run_queue_since(&self, now: MonoNs) -> u64 {
        if self.threads.has(signals::thread::run_queue::NAME) {
            now.0
        } else {
            0
        }
    }

    /// Lets the kernel programs follow threads, if the hooks for that were attached while a window was open.
    fn follow_threads(&mut self, watched: &mut Watched) {
        if watched.threads.window.is_open() && watched.known.run_queue_since == 0 {
            watched.known.run_queue_since = self.run_queue_since(clock::now());
            self.write(watched, 0);
        }
    }
}
