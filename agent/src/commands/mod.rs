//! The commands other than `run` and `record`, which are the pipeline's. The input is a command's arguments; each uses parts of the pipeline
//! or of a recording, prints what it finds, and returns the exit code of the process.

pub mod doctor;
pub mod findings;
pub mod goroutines;
pub mod profile;
pub mod replay;
pub mod selftest;
mod stacks;
