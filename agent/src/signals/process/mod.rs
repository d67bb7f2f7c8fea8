//! Processes as they come.

pub mod exec;
