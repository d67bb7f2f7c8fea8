//! Go's runtime.

pub mod assist;
pub mod gc;
pub mod goroutines;
pub mod handoff;
pub mod runtime;
pub mod sched;
pub mod stw;

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
