//! Off-CPU time of a thread: on a run queue, or asleep.

use crate::{layout, shared};

/// What a thread does while it is off-CPU.
pub const RUN_QUEUE: u64 = 0;
pub const THROTTLED: u64 = 1;
pub const ASLEEP: u64 = 2;

/// How many off-CPU intervals are kept for each thread, a power of two; and how long an interval must be to be kept, ns.
pub const INTERVALS: u64 = 4;
pub const MIN_INTERVAL: u64 = 10_000;

shared! {
    /// Sums of a thread's off-CPU time, ns, while the hooks counted.
    pub struct OffCpu {
        /// On a run queue.
        pub run_queue: u64,
        /// On a run queue, since a moment at which its cgroup was throttled.
        pub throttled: u64,
        /// Asleep.
        pub blocked: u64,
    }

    /// One off-CPU interval.
    pub struct OffCpuInterval {
        /// CLOCK_MONOTONIC, ns.
        pub begin: u64,
        pub end: u64,
        /// [`RUN_QUEUE`], [`THROTTLED`] or [`ASLEEP`].
        pub kind: u64,
    }

    /// The state of a thread.
    pub struct Thread {
        /// CLOCK_MONOTONIC, ns: since when all that it does is seen. If before [`crate::target::Target::run_queue_since`], the rest is of
        /// an earlier window, or of another thread that had this tid.
        pub known: u64,
        /// CLOCK_MONOTONIC, ns: since when it is on a run queue; 0 when it is not.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: since when it is asleep; 0 when it is not.
        pub asleep: u64,
        pub off_cpu: OffCpu,
        /// Its last time on a run queue, CLOCK_MONOTONIC, ns.
        pub last_begin: u64,
        pub last_end: u64,
        /// The target's id.
        pub target_id: u32,
        /// 1 when the current time on a run queue, or else the last, began while its cgroup was throttled.
        pub throttled: u32,
        /// The last intervals of at least [`MIN_INTERVAL`]; a new one replaces the oldest.
        pub intervals: [OffCpuInterval; INTERVALS as usize],
        /// How many such intervals there were.
        pub interval_count: u64,
    }
}

layout!(OffCpu: 24, OffCpuInterval: 24, Thread: 72 + 24 * INTERVALS as usize + 8);
