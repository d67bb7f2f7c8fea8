//! Threads: the kernel's scheduler, and what they ask the kernel for.

pub mod run_queue;
pub mod syscall;
pub mod totals;
