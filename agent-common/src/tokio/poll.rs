//! One poll of a task's future.

use crate::{event::Header, layout, shared};

/// In a type id: the task is a blocking-pool closure, not a future.
pub const BLOCKING: u32 = 1 << 31;

shared! {
    /// Key of a probed poll function: which future's code stands at this address of this process.
    pub struct SiteKey {
        /// Address of the probed instruction in the process.
        pub ip: u64,
        /// The target's slot.
        pub slot: u64,
    }

    /// A poll in progress on a thread.
    pub struct Running {
        /// CLOCK_MONOTONIC, ns.
        pub since: u64,
        /// Address of the task's header.
        pub task: u64,
        /// The future's type id.
        pub future: u32,
        /// The target's slot.
        pub slot: u32,
    }

    /// A poll over the threshold.
    pub struct Poll {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: begin. It ended at `header.time`.
        pub since: u64,
        /// tokio's task id; 0 when it could not be read.
        pub task_id: u64,
        /// The future's type id.
        pub future: u32,
        pub pad: u32,
        /// The thread's name, NUL-padded.
        pub thread: [u8; 16],
    }
}

layout!(SiteKey: 16, Running: 24, Poll: 64);
