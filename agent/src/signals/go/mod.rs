//! Go's runtime.

pub mod gc;
pub mod runtime;
pub mod sched;
