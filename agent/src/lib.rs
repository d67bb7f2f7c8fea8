//! whywait's agent. The modules are the data's way, in order; `pipeline` wires them.

pub mod kernel;

pub mod aggregate;
pub mod attach;
pub mod discover;
pub mod intake;
