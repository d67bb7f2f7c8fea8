//! Processes as they come.

pub mod exec;
pub mod quota;
