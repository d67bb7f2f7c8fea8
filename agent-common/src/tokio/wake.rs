//! A task between its wake and its poll.

use crate::{layout, shared};

shared! {
    /// Key of a task that was woken and has not been polled yet.
    pub struct WokenKey {
        /// Address of the task's header.
        pub task: u64,
        /// The target's slot.
        pub slot: u64,
    }
}

layout!(WokenKey: 16);
