//! Facts about the running kernel.

pub mod layout;

pub use layout::{LayoutError, read_layout};
