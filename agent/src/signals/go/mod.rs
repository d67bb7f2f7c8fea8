//! Go's runtime.

pub mod assist;
pub mod gc;
pub mod goroutines;
pub mod handoff;
pub mod runtime;
pub mod sched;
pub mod stw;
