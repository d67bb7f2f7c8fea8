//! System calls: how long, and who made them.

use crate::{event::Header, layout, shared};

shared! {
    /// A system call in progress on a thread.
    pub struct Call {
        /// CLOCK_MONOTONIC, ns: when it began; 0 when there is none.
        pub since: u64,
        /// The target's id.
        pub target_id: u32,
        /// Its number.
        pub number: u32,
    }

    /// A system call over the threshold that is not a wait for events. It ended at `header.time`.
    pub struct Syscall {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns.
        pub since: u64,
        /// The goroutine that made it, and the entry of the function it was started with; 0 when none did.
        pub goid: u64,
        pub startpc: u64,
        pub number: u32,
        pub pad: u32,
    }
}

layout!(Call: 16, Syscall: 24 + 4 * 8);
