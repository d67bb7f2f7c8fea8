pub mod off_cpu;
pub mod run_queue;
pub mod syscall;
