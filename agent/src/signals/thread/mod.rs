//! Threads and the kernel's scheduler.

pub mod run_queue;
