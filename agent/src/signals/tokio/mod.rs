//! tokio's runtime.

pub mod poll;
pub mod wake;
