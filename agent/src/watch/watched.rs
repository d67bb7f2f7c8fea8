//! A target as the watch has it: beside who it is and what its signals keep, how it is watched, how much of the time, and what that
//! costs.

use std::sync::Arc;

use agent_common::target::{Made, Over};
use tokio::task::AbortHandle;

use super::{Overhead, PlaneState};
use crate::{
    attach::{
        plan::{Failure, Probe},
        uprobe::Links,
    },
    budget::{Benefit, Bystander, Plane},
    capacity::Capacity,
    model::MonoNs,
    signals::{self, State},
    target::Target,
};

/// A watched process.
pub struct Watched {
    pub target: Target,
    /// What its signals keep.
    pub state: State,
    /// What it may use; read when a window is opened.
    pub capacity: Capacity,
    /// How often what could not be attached was tried again, one time after the other, and when it was tried last.
    pub tries: u32,
    pub tried: MonoNs,
    /// Waits for its process' end.
    pub end: Option<AbortHandle>,
    /// What could not be attached of late.
    pub failures: Failures,
    /// Probes that are always in place.
    pub links: Links,
    /// Those of them that could not be attached yet.
    pub missing: Vec<Probe>,
    /// What the kernel programs know of it.
    pub known: agent_common::target::Target,
    /// Plane 1: the kernel's hooks.
    pub hooks: PlaneState,
    /// What others' windows of plane 1 may cost it; None without a budget.
    pub bystander: Option<Bystander>,
    /// Plane 2.
    pub probes: PlaneState,
    /// Of plane 2.
    pub benefit: Benefit,
    pub overhead: Overhead,
    /// What it has made of the kernel's maps that all share, as metrics were last made.
    pub made: Made,
    /// What it could not have of those of them that are cleared, likewise.
    pub over: Over,
    /// Where probes are missing without which the kernel side sees less of some types of tasks, as far as it was told.
    pub lost: Vec<u64>,
}

/// What could not be attached, or read, when it was last tried, of each plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Probes that are always in place.
    pub always: Vec<Failure>,
    /// Those of windows.
    pub probes: Vec<Failure>,
    /// The kernel's hooks.
    pub hooks: Vec<Failure>,
    /// What is read of its memory.
    pub memory: Vec<Failure>,
}

impl Watched {
    /// Nothing attached yet.
    pub fn new(target: Target, state: State) -> Self {
        let since = target.since;
        Self {
            target,
            state,
            capacity: Capacity::default(),
            tries: 0,
            tried: since,
            end: None,
            failures: Failures::default(),
            links: Links::default(),
            missing: Vec::new(),
            known: agent_common::target::Target::default(),
            hooks: PlaneState::new(Plane::Hooks, Arc::from([]), None, since),
            bystander: None,
            probes: PlaneState::new(Plane::Probes, Arc::from([]), None, since),
            benefit: Benefit::default(),
            overhead: Overhead::default(),
            made: Made::default(),
            over: Over::default(),
            lost: Vec::new(),
        }
    }

    /// Says anew what there is of each signal.
    pub fn restate(&mut self) {
        let Failures {
            always,
            probes,
            hooks,
            memory,
        } = &self.failures;
        let failures = always.iter().chain(probes).chain(hooks).chain(memory);
        self.state.restate(failures);
    }

    /// Whether a window of either plane is open.
    pub fn is_seen(&self) -> bool {
        self.hooks.window.is_open() || self.probes.window.is_open()
    }

    /// The plane that a signal depends on; None for what is always on.
    pub fn plane_of(&self, signal: &str) -> Option<&PlaneState> {
        if self.probes.probes.iter().any(|probe| probe.signal == signal) {
            return Some(&self.probes);
        }
        signals::is_hooked(signal).then_some(&self.hooks)
    }
}
