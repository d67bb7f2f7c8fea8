//! Makes a process a target: what the kernel side must know first, then what is always in place.

use agent_common::target::HOOKS_OPEN;
use anyhow::Context as _;
use log::warn;

use super::{PlaneState, SHORTEST_HOOKS, SHORTEST_PROBES, Watch, Watched, Window, done};
use crate::{
    attach::{
        plan::{Failure, Plan},
        uprobe::Place,
    },
    budget::{Bystander, Ledger, Plane},
    discover::ProcessError,
    signals,
};

impl Watch {
    /// First what the programs must know, then the probes: no probe fires for a process that is not known.
    pub(super) fn attach(&mut self, watched: &mut Watched, plan: &Plan, index: u32) -> anyhow::Result<()> {
        let pid = watched.target.process.pid;
        let missing = self.maps.set_plan(watched.target.id, plan);
        let image = watched.target.image.clone();
        let failures = image.map(|image| signals::plan::without_entries(&*image, plan, missing));
        for failure in failures.iter().flatten() {
            lessen(watched, failure);
        }
        watched.known = plan.target(watched.target.id, index);
        let Watched {
            target, state, known, ..
        } = &mut *watched;
        signals::start(target, state, &self.options.thresholds, known);
        let ledger = self.options.limits.map(|limits| {
            Ledger::new(
                limits.of_hooks(watched.benefit.reserved()),
                SHORTEST_HOOKS,
                u64::from(watched.target.id),
            )
        });
        watched.bystander = self
            .options
            .limits
            .map(|limits| Bystander::new(limits, SHORTEST_HOOKS, u64::from(watched.target.id)));
        watched.hooks = PlaneState::new(Plane::Hooks, [].into(), ledger, watched.target.since);
        watched.known.allowance[Plane::Hooks as usize] = watched.hooks.allowance(0);
        watched.overhead.turned = watched.target.since;
        watched.overhead.clock = watched.target.process.cpu_time().unwrap_or_default();
        if self.hook_set.want(watched.target.id, &self.windows) {
            watched.known.flags |= HOOKS_OPEN;
            watched.known.hooks_since = watched.target.since.0;
            watched.known.threads_since = self.threads_since(watched.target.since);
            watched.hooks.window = Window::Open {
                since: watched.target.since,
            };
        } else {
            watched.hooks.window = Window::Busy;
        }
        self.maps
            .admit(pid, &watched.known)
            .context("cannot write the target to the kernel maps")?;
        let (windowed, always) = signals::plan::divide(&plan.probes);
        let place = Place::of(&watched.target.process, watched.target.bias);
        let outcome = self.windows.attach(&place, &always);
        anyhow::ensure!(
            outcome.failures.is_empty() || watched.target.process.is_alive(),
            ProcessError::Ended { pid }
        );
        (watched.links, watched.missing) = (outcome.links, outcome.missing);
        watched.failures.hooks = self.hook_set.failures();
        done::note(watched, |failures| &mut failures.always, outcome.failures);
        let ledger = self
            .options
            .limits
            .map(|limits| Ledger::new(limits, SHORTEST_PROBES, u64::from(watched.target.id)));
        watched.probes = PlaneState::new(Plane::Probes, windowed.into(), ledger, watched.target.since);
        Ok(())
    }
}

/// Takes something away from a signal for as long as the target exists.
fn lessen(watched: &mut Watched, Failure { signal, reason, .. }: &Failure) {
    warn!("process {}: {signal}: {reason}", watched.target.process.pid);
    for state in watched.state.planned.iter_mut().filter(|state| state.signal == *signal) {
        state.coverage.lessen(reason);
    }
    watched.restate();
}
