pub mod run_queue;
