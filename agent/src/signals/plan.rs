//! What to attach to a process: the plans of its runtime's signals together, without those that nobody wants. Pure.

mod needs;
#[cfg(test)]
mod tests;

use crate::{
    attach::plan::{Failure, Plan, Probe},
    inspect::Image,
    signal::{Coverage, LEFT_OUT, SignalState},
    signals::{go, tokio},
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
pub fn plan(image: &Image, bias: u64, without: &[String]) -> Plan {
    let mut plan = match image {
        Image::Go(image) => go::plan(image, bias),
        Image::Tokio(image) => tokio::plan(image, bias),
    };
    leave_out(&mut plan, without);
    let is_poll_end = |probe: &Probe| probe.program == tokio::poll::POLL_END;
    if !plan.probes.iter().any(is_poll_end) {
        tokio::poll::without_ends(&mut plan);
    }
    plan
}

/// Where the probes are that see polls end, of some.
pub fn poll_ends(probes: &[Probe]) -> Vec<u64> {
    let ends = probes.iter().filter(|probe| probe.program == tokio::poll::POLL_END);
    ends.map(|probe| probe.site.file_offset).collect()
}

/// What the kernel side is to be told of the types of tasks while probes that see polls end are `missing`, and what that takes from
/// their signal.
pub fn without_ends(image: &Image, bias: u64, missing: &[Probe]) -> (Vec<(u64, u32)>, Option<Failure>) {
    match image {
        Image::Go(_) => (Vec::new(), None),
        Image::Tokio(image) => (
            tokio::poll::types(image, bias, missing),
            tokio::poll::lost_ends(image, missing),
        ),
    }
}

/// Takes the signals in `without` out of a plan.
fn leave_out(plan: &mut Plan, without: &[String]) {
    let is_left_out = |signal: &str| without.iter().any(|name| name == signal);
    for state in plan.states.iter_mut().filter(|state| is_left_out(state.signal)) {
        state.coverage = Coverage::Off(LEFT_OUT.to_owned());
    }
    plan.drop_probes(is_left_out);
}

/// Takes all that hangs on the Go runtime's memory out of a plan; `reason` is why. What was off keeps its own reason.
pub fn without_go(plan: &mut Plan, reason: &str) {
    plan.flags = 0;
    for signal in go::NAMES {
        match plan.states.iter_mut().find(|state| state.signal == signal) {
            Some(state) => state.coverage.end(reason),
            None => plan.set(signal, Coverage::Off(reason.to_owned())),
        }
    }
    plan.drop_probes(|signal| go::NAMES.contains(&signal));
}
