//! Plane 1: the kernel's hooks that are called very often, those on sockets (1a) and those on threads (1b). Those of a plane are attached while a
//! target's window of it is open, or about to open; while they are detached they cost nothing, neither targets nor the rest of the host. All
//! targets share them.

use std::time::Instant;

use crate::{
    attach::{
        kernel::AttachedHook,
        plan::Failure,
        windows::{self, Windows},
    },
    budget::Plane,
};
use set::{Change, HookSet};

mod set;

/// The hooks of a plane.
pub struct Hooks {
    plane: Plane,
    set: HookSet,
    windows: Windows,
}

impl Hooks {
    /// Takes over hooks that are attached. With `always` they stay attached.
    pub(super) fn new(plane: Plane, attached: Vec<AttachedHook>, always: bool, windows: Windows) -> Self {
        Self {
            plane,
            set: HookSet::new(attached, always),
            windows,
        }
    }

    /// A target wants the hooks. True if it need not wait; otherwise [`Self::on_done`] names it when they are attached.
    pub(super) fn want(&mut self, target_id: u32) -> bool {
        self.set.add(target_id);
        self.update();
        self.set.is_ready()
    }

    /// A target does not want the hooks any more.
    pub(super) fn release(&mut self, target_id: u32) {
        self.set.remove(target_id);
        self.update();
    }

    /// Attaches the hooks if any target wants them, and otherwise detaches them. Tries those again that were refused.
    pub(super) fn update(&mut self) {
        match self.set.next(Instant::now()) {
            Some(Change::Attach(hooks)) => self.windows.attach_hooks(self.plane, hooks),
            Some(Change::Detach(hooks)) => self.windows.detach_hooks(self.plane, hooks),
            None => {}
        }
    }

    /// Takes over a finished change. Returns the targets that want the hooks, if they are attached.
    pub(super) fn on_done(&mut self, done: windows::Hooks) -> Vec<u32> {
        self.set.on_done(done, Instant::now());
        self.update();
        if self.set.is_ready() {
            self.set.wanted()
        } else {
            Vec::new()
        }
    }

    /// Whether any are attached, or change: they are about to be attached or were a moment ago.
    pub(super) fn is_attached(&self) -> bool {
        self.set.is_attached()
    }

    /// Whether the hook of a signal is attached.
    pub(super) fn has(&self, signal: &str) -> bool {
        self.set.has(signal)
    }

    /// Hooks that the kernel refused at the last attempt.
    pub(super) fn failures(&self) -> Vec<Failure> {
        self.set.failures()
    }
}
