//! Go's runtime.

pub mod assist;
pub mod gc;
pub mod goroutines;
pub mod handoff;
mod layout;
pub mod origins;
pub mod runtime;
pub mod sched;
pub mod stw;

use agent_common::target::IS_GO;

use super::plan::without_go;
use crate::{attach::plan::Plan, inspect::GoImage, signal::Coverage};

/// All that hang on the runtime's memory.
pub const NAMES: [&str; 7] = [
    runtime::NAME,
    goroutines::NAME,
    gc::NAME,
    stw::NAME,
    assist::NAME,
    sched::NAME,
    handoff::NAME,
];

/// The plan of a Go process.
pub fn plan(image: &GoImage, bias: u64) -> Plan {
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
            gc::plan(image, &mut plan);
            stw::plan(image, &mut plan);
            assist::plan(image, &mut plan);
            sched::plan(image, &mut plan);
            handoff::plan(image, &mut plan);
        }
        Err(reason) => without_go(&mut plan, &reason),
    }
    plan
}
