//! A thread that is runnable and waits for a core.

use crate::{layout, shared};

shared! {
    /// Since when a thread waits, and whose it is.
    pub struct Waiting {
        /// CLOCK_MONOTONIC, ns.
        pub since: u64,
        /// The target's slot.
        pub slot: u32,
        pub pad: u32,
    }
}

layout!(Waiting: 16);
