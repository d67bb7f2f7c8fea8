//! What to attach to a process: the plans of its runtime's signals together, without those that nobody wants. Pure.

mod needs;
#[cfg(test)]
mod tests;

use agent_common::hits::Plane;

use crate::{
    attach::{
        maps::Missing,
        plan::{Failure, Plan, Probe},
    },
    inspect::Image,
    runtime::ProofError,
    signal::{Coverage, LEFT_OUT, SignalState},
    signals::{
        State, is_always_on, plane,
        process::quota,
        runtimes::{Lost, runtime},
        thread::totals,
    },
};

/// What there is of each signal now: what was `planned`, but for what could not be attached.
pub fn states_now<'a>(planned: &[SignalState], failures: impl IntoIterator<Item = &'a Failure>) -> Vec<SignalState> {
    let mut states = planned.to_vec();
    for failure in failures {
        let of = states.iter_mut().filter(|state| state.signal == failure.signal);
        for state in of {
            if failure.essential {
                state.coverage.end(&failure.reason);
            } else {
                state.coverage.lessen(&failure.reason);
            }
        }
    }
    needs::resolve(&mut states);
    states
}

/// The plan for a process whose executable is `image` at `bias`, without the signals in `without`.
pub fn plan(image: &dyn Image, bias: u64, without: &[String]) -> Plan {
    let Some(runtime) = runtime(image) else {
        return Plan::default();
    };
    let mut plan = runtime.plan(bias);
    leave_out(&mut plan, without);
    runtime.settle(&mut plan);
    plan
}

/// Opens the memory of a process for its signals: [`Runtime::open`].
///
/// [`Runtime::open`]: super::runtimes::Runtime::open
pub fn open(image: &dyn Image, pid: u32, bias: u64, state: &mut State) -> Result<(), ProofError> {
    runtime(image).map_or(Ok(()), |runtime| runtime.open(pid, bias, state))
}

/// Takes all that hangs on the runtime's memory out of a plan; `reason` is why.
pub fn without_memory(image: &dyn Image, plan: &mut Plan, reason: &str) {
    if let Some(runtime) = runtime(image) {
        runtime.without_memory(plan, reason);
    }
}

/// What signals lose when the kernel's maps had no space for some entries of a plan.
pub fn without_entries(image: &dyn Image, plan: &Plan, missing: Missing) -> Vec<Failure> {
    runtime(image).map_or_else(Vec::new, |runtime| runtime.without_entries(plan, missing))
}

/// The probes of a plan, by when they are attached.
#[derive(Debug, Default)]
pub struct PlannedProbes {
    pub always: Vec<Probe>,
    /// In windows of plane 2s, the runtime's own sample.
    pub sample: Vec<Probe>,
    /// In windows of plane 2.
    pub windowed: Vec<Probe>,
}

/// Divides the probes of a plan.
pub fn divide(probes: &[Probe]) -> PlannedProbes {
    let mut divided = PlannedProbes::default();
    for probe in probes {
        let of = match plane(probe.signal) {
            _ if is_always_on(probe.signal) => &mut divided.always,
            Some(Plane::Sample) => &mut divided.sample,
            _ => &mut divided.windowed,
        };
        of.push(probe.clone());
    }
    divided
}

/// The signals of a process that do not depend on its executable, without those in `without`.
pub fn of_process(pid: u32, without: &[String]) -> Vec<SignalState> {
    vec![quota::state(pid, without), totals::state(pid, without)]
}

/// What is seen less as probes are `missing`, beside their own signals; `before` is whether anything was before.
pub fn lost(image: &dyn Image, bias: u64, missing: &[Probe], before: bool) -> Option<Lost> {
    runtime(image)?.lost(bias, missing, before)
}

/// Takes the signals in `without` out of a plan.
fn leave_out(plan: &mut Plan, without: &[String]) {
    let is_left_out = |signal: &str| without.iter().any(|name| name == signal);
    for state in plan.states.iter_mut().filter(|state| is_left_out(state.signal)) {
        state.coverage = Coverage::Off(LEFT_OUT.to_owned());
    }
    plan.drop_probes(is_left_out);
}
