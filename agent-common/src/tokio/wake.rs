//! A task between its wake and its poll.

use crate::{layout, shared, table};

/// An argument is in rdi, rsi or rdx (on arm64 x0, x1 or x2).
pub const IN_RDI: u32 = 0;
pub const IN_RSI: u32 = 1;
pub const IN_RDX: u32 = 2;
/// An argument is on the stack: this plus its offset from rsp, bytes.
pub const ON_STACK: u32 = 1 << 31;

/// Added to the time of a poll.
pub const POLLED: u64 = 1 << 63;

shared! {
    /// Key of a probed instruction whose argument has moved away from the register it came in.
    pub struct SiteKey {
        /// Address of the instruction in the process.
        pub ip: u64,
        /// The target's id.
        pub target_id: u64,
    }

    /// Key of a task that was woken. What is kept for it is when, CLOCK_MONOTONIC, ns; or when it was polled, with [`POLLED`], since it will be woken
    /// again.
    pub struct WokenKey {
        /// Address of the task's header.
        pub task: u64,
        /// The target's id.
        pub target_id: u64,
    }
}

impl table::Key for WokenKey {
    #[inline(always)]
    fn hash(self) -> u64 {
        table::mixed(self.task, self.target_id)
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self.target_id == 0
    }
}

impl table::Key for SiteKey {
    #[inline(always)]
    fn hash(self) -> u64 {
        table::mixed(self.ip, self.target_id)
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self.target_id == 0
    }
}

/// Places for sites.
pub const SITES: u32 = 4096;

layout!(SiteKey: 16, WokenKey: 16);
