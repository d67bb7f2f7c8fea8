//! Go's runtime.

pub mod assist;
pub mod gc;
pub mod goroutines;
pub mod runtime;
pub mod sched;
pub mod stw;
