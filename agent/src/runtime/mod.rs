//! What runtimes keep in the memory of their processes: proved to be where the executable says, then read. A pid and an [`Image`] come in,
//! snapshots go out; nothing is written, and nothing here knows signals.
//!
//! [`Image`]: crate::inspect::Image

pub mod go;

pub use go::ProofError;
