//! Plane 1: the kernel's hooks that are called very often. They are attached while a target's window is open, or about to open; while they are
//! detached they cost nothing, neither targets nor the rest of the host. All targets share them.

use std::time::Instant;

use crate::{
    attach::{
        kernel::{self, HookState},
        plan::Failure,
        windows::{self, Windows},
    },
    signal::SignalState,
};
use set::{Change, HookSet};

mod set;

/// The hooks.
pub struct Hooks {
    /// How much of each hook's signal is available.
    states: Vec<SignalState>,
    set: HookSet,
    windows: Windows,
}

impl Hooks {
    /// Takes over `hooks`, all of them attached. With `always` they stay attached.
    pub(super) fn new(mut hooks: Vec<HookState>, always: bool, windows: Windows) -> Self {
        let attached = hooks.iter_mut().filter_map(|hook| hook.attached.take()).collect();
        Self {
            states: kernel::states(&hooks).collect(),
            set: HookSet::new(attached, always),
            windows,
        }
    }

    /// How much of each hook's signal is available.
    pub(super) fn states(&self) -> &[SignalState] {
        &self.states
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
            Some(Change::Attach(hooks)) => self.windows.attach_hooks(hooks),
            Some(Change::Detach(hooks)) => self.windows.detach_hooks(hooks),
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
