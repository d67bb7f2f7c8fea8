//! One poll of a task's future.

use crate::{event::Header, layout, shared, table};

/// In a type id: the task is a blocking-pool closure, not a future.
pub const BLOCKING: u32 = 1 << 31;
/// In a type id: not all ends of such polls are seen, so their length is not known, nor whether one is still in progress.
pub const UNENDED: u32 = 1 << 30;

shared! {
    /// Key of a type of tasks: its vtable, which every task's header points to.
    pub struct TypeKey {
        /// Address of the vtable in the process.
        pub vtable: u64,
        /// The target's id.
        pub target_id: u64,
    }

    /// What a thread of a tokio runtime does; kept by tid, changed in place.
    pub struct Thread {
        /// Address of the header of the task that is polled; 0 between polls.
        pub task: u64,
        /// CLOCK_MONOTONIC, ns: begin of that poll.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: first poll after the worker's last park; 0 while it is parked.
        pub busy_since: u64,
        /// The stack pointer at that poll's begin.
        pub sp: u64,
        /// The task's type id.
        pub future: u32,
        /// The target's id.
        pub target_id: u32,
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

impl table::Key for TypeKey {
    #[inline(always)]
    fn hash(self) -> u64 {
        table::mixed(self.vtable, self.target_id)
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self.target_id == 0
    }
}

/// Places for types.
pub const TYPES: u32 = 16 * 1024;

layout!(TypeKey: 16, Thread: 40, Poll: 64);
