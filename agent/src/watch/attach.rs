//! Makes a process a target: what the kernel side must know first, then what is always in place.

use agent_common::target::HOOKS_OPEN;
use anyhow::Context as _;
use log::warn;

use super::{Options, SHORTEST_HOOKS, SHORTEST_PROBES, Watch, done};
use crate::{
    attach::{
        plan::{Plan, Probe},
        uprobe::Place,
    },
    budget::{Duty, Guest, Ledger, Plane, Window},
    discover::ProcessError,
    inspect::{Image, InspectError},
    runtime::go::{GoRuntime, ProofError},
    signals,
    target::{GoState, Target},
};

impl Watch {
    /// Opens a Go process' memory; None where there is no runtime to read. An error is why nothing that
    /// was found of the runtime may be used.
    pub(super) fn open_runtime(
        &self,
        pid: u32,
        image: Option<&Image>,
        bias: u64,
    ) -> Result<Option<GoState>, ProofError> {
        let Some(Image::Go(image)) = image else { return Ok(None) };
        let Some(runtime) = GoRuntime::of(pid, image, bias)? else {
            return Ok(None);
        };
        Ok(Some(GoState {
            bounds: runtime.bounds().into(),
            runtime: runtime.into(),
            latest: None,
        }))
    }

    /// First what the programs must know, then the probes: no probe fires for a process that is not known.
    pub(super) fn attach(&mut self, target: &mut Target, plan: &Plan, index: u32) -> anyhow::Result<()> {
        let pid = target.process.pid;
        let Options {
            slow_wait,
            slow_poll,
            slow_request,
            ..
        } = self.options;
        let (types, sites) = (
            self.maps.set_types(target.slot, &plan.types),
            self.maps.set_sites(target.slot, &plan.sites),
        );
        if types > 0 {
            let all = plan.types.len();
            let reason = format!(
                "{types} of {all} types of tasks are not told apart, nor whether they block: the kernel side has no room for more"
            );
            lessen(target, signals::tokio::poll::NAME, &reason);
        }
        if sites > 0 {
            let all = plan.sites.len();
            let reason = format!(
                "{sites} of {all} places where tasks are woken are not seen: the kernel side has no room for more"
            );
            lessen(target, signals::tokio::wake::NAME, &reason);
        }
        target.known = plan.target(target.slot, slow_wait, slow_poll, slow_request);
        target.known.index = index;
        if let Some(go) = &target.go {
            target.known.told_reasons = signals::go::sched::told_reasons(&go.runtime.wait_reasons);
        }
        if !target.is_off(signals::process::quota::NAME) {
            signals::process::quota::begin(target);
        }
        let ledger = self.options.limits.map(|limits| {
            Ledger::new(
                limits.of_hooks(target.worth.reserved()),
                SHORTEST_HOOKS,
                u64::from(target.slot),
            )
        });
        target.guest = self
            .options
            .limits
            .map(|limits| Guest::new(limits, SHORTEST_HOOKS, u64::from(target.slot)));
        target.hooks = Duty::new(Plane::Hooks, [].into(), ledger, target.since);
        target.known.allowance[Plane::Hooks as usize] = target.hooks.allowance(0);
        target.spent.turned = target.since;
        target.spent.clock = target.process.cpu_time().unwrap_or_default();
        if self.hook_set.want(target.slot, &self.windows) {
            target.known.flags |= HOOKS_OPEN;
            target.known.hooks_since = target.since.0;
            target.known.threads_since = self.threads_since(target.since);
            target.hooks.window = Window::Open { since: target.since };
        } else {
            target.hooks.window = Window::Busy;
        }
        self.maps
            .admit(pid, &target.known)
            .context("cannot tell the kernel side of the target")?;
        let (windowed, always): (Vec<Probe>, Vec<Probe>) = plan
            .probes
            .iter()
            .cloned()
            .partition(|probe| !signals::is_always_on(probe.signal));
        let place = Place::of(&target.process, target.bias);
        let outcome = self.windows.attach(&place, &always);
        anyhow::ensure!(
            outcome.failures.is_empty() || target.process.is_alive(),
            ProcessError::Ended { pid }
        );
        (target.links, target.missing) = (outcome.links, outcome.missing);
        target.failures.hooks = self.hook_set.failures();
        done::note(target, |failures| &mut failures.always, outcome.failures);
        let ledger = self
            .options
            .limits
            .map(|limits| Ledger::new(limits, SHORTEST_PROBES, u64::from(target.slot)));
        target.probes = Duty::new(Plane::Probes, windowed.into(), ledger, target.since);
        Ok(())
    }
}

/// Takes note of what the kernel side has no room for, as long as the target lasts.
fn lessen(target: &mut Target, signal: &str, reason: &str) {
    warn!("process {}: {signal}: {reason}", target.process.pid);
    for state in target.planned.iter_mut().filter(|state| state.signal == signal) {
        state.coverage.lessen(reason);
    }
    target.restate();
}

/// Why nothing of a Go runtime can be read.
pub(super) fn go_error(image: &Image) -> Option<InspectError> {
    match image {
        Image::Go(image) => image.offsets.as_ref().err().or(image.globals.as_ref().err()).cloned(),
        Image::Tokio(_) => None,
    }
}
