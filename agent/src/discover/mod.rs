//! Stage discover: reads processes in /proc. In come pids and the user's choice; out go processes, their executables, and which processes are
//! new since the last scan.

pub mod census;
pub mod namespace;
pub mod objects;
pub mod process;
#[cfg(test)]
pub(crate) mod scripted;
pub mod select;

pub use census::Census;
pub use process::{Process, ProcessError};
pub use select::Selector;
