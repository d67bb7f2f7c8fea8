//! Stage discover: which processes to watch. New ones are learnt from exec events and from a look at all now and
//! then, ends from pidfds.

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
