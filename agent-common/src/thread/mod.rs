//! Threads and the kernel: its scheduler, and what they ask it for.

pub mod run_queue;
pub mod syscall;
