//! Stage attach: from facts to a plan (pure), from the plan to links.

mod bytes;
mod guard;
pub mod kernel;
pub mod maps;
pub mod multi;
#[cfg(test)]
mod object_tests;
pub mod plan;
pub mod uprobe;
pub mod windows;
