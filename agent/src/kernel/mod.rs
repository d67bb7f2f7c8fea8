//! Facts about the running kernel.

mod btf;
pub mod layout;
pub mod preemption;

pub use layout::{LayoutError, read};
pub use preemption::{Kfuncs, Preemption};
