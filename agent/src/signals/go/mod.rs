//! Go's runtime.

pub mod assist;
pub mod gc;
pub mod goroutines;
pub mod handoff;
pub mod latency;
mod layout;
pub mod looks;
pub mod origins;
mod reasons;
pub mod runtime;
pub mod sched;
pub mod stops;
pub mod stw;
pub mod wait;
pub mod waits;

use agent_common::target::IS_GO;

use super::{State, runtimes::Runtime};
use crate::{
    attach::plan::Plan,
    inspect::GoImage,
    runtime::{ProofError, go::GoRuntime},
    signal::Coverage,
};

/// All that hang on the runtime's memory.
pub(super) const NAMES: [&str; 9] = [
    runtime::NAME,
    goroutines::NAME,
    wait::NAME,
    gc::NAME,
    stw::NAME,
    assist::NAME,
    sched::NAME,
    handoff::NAME,
    latency::NAME,
];

impl Runtime for GoImage {
    fn plan(&self, bias: u64) -> Plan {
        plan(self, bias)
    }

    fn open(&self, pid: u32, bias: u64, state: &mut State) -> Result<(), ProofError> {
        if let Some(runtime) = GoRuntime::of(pid, self, bias)? {
            state.wait_reasons.clone_from(&runtime.wait_reasons);
            state.go = Some(runtime::GoState::new(runtime));
        }
        Ok(())
    }

    fn without_memory(&self, plan: &mut Plan, reason: &str) {
        without_memory(plan, reason);
    }
}

fn plan(image: &GoImage, bias: u64) -> Plan {
    let mut plan = Plan {
        flags: IS_GO,
        ..Plan::default()
    };
    let layout = match (&image.offsets, &image.globals) {
        (Ok(offsets), Ok(globals)) => Ok(layout::of_go(image, offsets, globals, bias)),
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    };
    match layout {
        Ok(layout) => {
            plan.go = layout;
            plan.set(runtime::NAME, runtime::coverage(image));
            plan.set(goroutines::NAME, Coverage::Full);
            plan.set(wait::NAME, Coverage::Full);
            gc::plan(image, &mut plan);
            stw::plan(image, &mut plan);
            assist::plan(image, &mut plan);
            sched::plan(image, &mut plan);
            handoff::plan(image, &mut plan);
            latency::plan(image, &mut plan);
        }
        Err(reason) => without_memory(&mut plan, &reason),
    }
    plan
}

fn without_memory(plan: &mut Plan, reason: &str) {
    plan.flags = 0;
    for signal in NAMES {
        match plan.states.iter_mut().find(|state| state.signal == signal) {
            Some(state) => state.coverage.end(reason),
            None => plan.set(signal, Coverage::Off(reason.to_owned())),
        }
    }
    plan.drop_probes(|signal| NAMES.contains(&signal));
}
