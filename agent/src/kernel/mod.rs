//! Facts about the running kernel.

mod btf;
pub mod layout;

pub use layout::{LayoutError, read_layout};
