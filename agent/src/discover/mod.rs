//! Stage discover: which processes to watch. New ones are learnt from exec events, ends from pidfds.

pub mod objects;
pub mod process;
pub mod select;

pub use process::{Process, ProcessError};
pub use select::Selector;
