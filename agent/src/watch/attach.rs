//! Makes a process a target: what the kernel side must know first, then what is always in place.

use agent_common::target::HOOKS_OPEN;
use anyhow::Context as _;
use log::warn;

use super::{Options, PlaneState, SHORTEST_HOOKS, SHORTEST_PROBES, Watch, Watched, Window, done};
use crate::{
    attach::{
        plan::{Plan, Probe},
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
        let Options {
            slow_wait,
            slow_poll,
            slow_request,
            ..
        } = self.options;
        let (types, sites) = (
            self.maps.set_types(watched.target.id, &plan.types),
            self.maps.set_sites(watched.target.id, &plan.sites),
        );
        if types > 0 {
            let all = plan.types.len();
            let reason = format!(
                "{types} of {all} types of tasks are not distinguished, nor whether they block: the kernel map is full"
            );
            lessen(watched, signals::tokio::poll::NAME, &reason);
        }
        if sites > 0 {
            let all = plan.sites.len();
            let reason =
                format!("{sites} of {all} places where tasks are woken are not observed: the kernel map is full");
            lessen(watched, signals::tokio::wake::NAME, &reason);
        }
        watched.known = plan.target(watched.target.id, slow_wait, slow_poll, slow_request);
        watched.known.index = index;
        watched.known.reported_reasons = signals::go::sched::reported_reasons(&watched.state.wait_reasons);
        if !watched.state.is_off(signals::process::quota::NAME) {
            signals::process::quota::begin(&watched.target, &mut watched.state);
        }
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
        let (windowed, always): (Vec<Probe>, Vec<Probe>) = plan
            .probes
            .iter()
            .cloned()
            .partition(|probe| !signals::is_always_on(probe.signal));
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

/// Takes note of what the kernel side has no room for, as long as the target lasts.
fn lessen(watched: &mut Watched, signal: &str, reason: &str) {
    warn!("process {}: {signal}: {reason}", watched.target.process.pid);
    for state in watched.state.planned.iter_mut().filter(|state| state.signal == signal) {
        state.coverage.lessen(reason);
    }
    watched.restate();
}
