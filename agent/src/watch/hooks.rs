//! The kernel's hooks that are called very often: attached while a target's window is open, or about to be. What is not
//! attached costs nothing, neither targets nor the rest of the host.

use std::collections::HashSet;

use log::warn;

use crate::{
    attach::kernel::{HookLink, HookProgram, HookState},
    budget::window::{Hooks, Windows},
};

/// Where the hooks stand.
enum State {
    Attached(Vec<HookLink>),
    Detached(Vec<HookProgram>),
    /// One or the other is under way.
    Moving,
}

/// The hooks, and the slots of targets that want them.
pub struct HookSet {
    state: State,
    wanted: HashSet<u32>,
    /// Without a budget they stay where they are.
    stays: bool,
}

impl HookSet {
    /// Takes over the links of what is windowed among `hooks`, all of it attached.
    pub fn new(hooks: &mut [HookState], stays: bool) -> Self {
        let links = hooks.iter_mut().flat_map(|hook| std::mem::take(&mut hook.links));
        Self {
            state: State::Attached(links.collect()),
            wanted: HashSet::new(),
            stays,
        }
    }

    /// A target wants them; whether they are there. Otherwise they will be: see [`Self::done`].
    pub fn want(&mut self, slot: u32, windows: &Windows) -> bool {
        self.wanted.insert(slot);
        self.turn(windows);
        matches!(self.state, State::Attached(_))
    }

    /// A target wants them no more, if it ever did.
    pub fn release(&mut self, slot: u32, windows: &Windows) {
        self.wanted.remove(&slot);
        self.turn(windows);
    }

    /// Whether they are, or are about to be or were a moment ago.
    pub fn is_attached(&self) -> bool {
        !matches!(self.state, State::Detached(_))
    }

    /// What was under way is done: the slots that have waited for it.
    pub fn done(&mut self, done: Hooks, windows: &Windows) -> Vec<u32> {
        let mut waited = Vec::new();
        self.state = match done {
            Hooks::Attached { links, failures } => {
                // One that was refused now was not at the start: the others are worth having.
                for error in failures {
                    warn!("a hook of the kernel is off: {error}");
                }
                waited.extend(&self.wanted);
                State::Attached(links)
            }
            Hooks::Detached(programs) => State::Detached(programs),
        };
        self.turn(windows);
        waited
    }

    /// Attaches what is wanted, detaches what is not.
    pub fn turn(&mut self, windows: &Windows) {
        let wanted = self.stays || !self.wanted.is_empty();
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Attached(links) if !wanted => windows.detach_hooks(links),
            State::Detached(programs) if wanted => windows.attach_hooks(programs),
            state => self.state = state,
        }
    }
}
