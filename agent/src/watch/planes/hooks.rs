//! Windows of plane 1, the kernel's hooks.

use super::Planes;
use crate::{
    attach::windows,
    budget::Plane,
    capacity::Capacity,
    clock,
    model::MonoNs,
    signals,
    watch::{PendingInterval, TargetTable, Watched, Window},
};

impl Planes {
    /// Opens a window of the hooks, now or when they are attached.
    pub(in crate::watch) fn open_hooks(&mut self, watched: &mut Watched) {
        watched.capacity = Capacity::of(watched.target.process.pid);
        if self.hooks.want(watched.target.id) {
            self.open_attached_hooks(watched);
        } else {
            watched.hooks.window = Window::Busy;
        }
    }

    fn open_attached_hooks(&mut self, watched: &mut Watched) {
        let now = clock::now();
        let is_first = watched.known.hooks_since == 0;
        watched.known.hooks_since = now.0;
        watched.known.threads_since = self.threads_since(now);
        self.open(watched, Plane::Hooks, is_first, now);
        if is_first {
            watched.log_if_complete();
        }
    }

    pub(in crate::watch) fn close_hooks(&mut self, watched: &mut Watched) -> Option<PendingInterval> {
        let pending = self.close(watched, Plane::Hooks);
        self.hooks.release(watched.target.id);
        watched.hooks.closed();
        pending
    }

    /// Opens the windows that waited for the hooks, and updates what is missing of them.
    pub(super) fn on_hooks_done(&mut self, targets: &mut TargetTable, done: windows::Hooks) {
        let before = self.hooks.failures();
        for id in self.hooks.on_done(done) {
            if let Some(watched) = targets.active(id)
                && watched.hooks.window == Window::Busy
            {
                self.open_attached_hooks(watched);
            }
        }
        let failures = self.hooks.failures();
        if failures == before {
            return;
        }
        for watched in targets.iter_mut() {
            watched.failures.hooks.clone_from(&failures);
            watched.restate();
            self.follow_threads(watched);
        }
    }

    /// Since when threads are followed in a window of the hooks that opens `now`; 0 while they are not.
    pub(super) fn threads_since(&self, now: MonoNs) -> u64 {
        if self.hooks.has(signals::thread::run_queue::NAME) {
            now.0
        } else {
            0
        }
    }

    /// Lets the kernel programs follow threads, if the hooks for that were attached while a window was open.
    fn follow_threads(&mut self, watched: &mut Watched) {
        if watched.hooks.window.is_open() && watched.known.threads_since == 0 {
            watched.known.threads_since = self.threads_since(clock::now());
            self.write(watched, 0);
        }
    }
}
