//! Processes.

pub mod quota;
