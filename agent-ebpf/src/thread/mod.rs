pub mod off;
pub mod run_queue;
pub mod syscall;
