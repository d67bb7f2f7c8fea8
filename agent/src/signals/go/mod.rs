//! Go's runtime.

pub mod gc;
pub mod goroutines;
pub mod runtime;
pub mod sched;
pub mod stw;
