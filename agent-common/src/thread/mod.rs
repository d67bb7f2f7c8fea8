//! Threads and the kernel: its scheduler, and system calls.

pub mod run_queue;
pub mod syscall;
