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
        /// Four times its length, ns, plus [`RUN_QUEUE`], [`THROTTLED`] or [`ASLEEP`].
        pub length_and_kind: u64,
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
        /// The target's id.
        pub target_id: u32,
        /// 1 when the current time on a run queue, or else the last, began while its cgroup was throttled.
        pub throttled: u32,
        /// How many intervals there were of at least [`MIN_INTERVAL`]. A wakeup, which may be on another CPU, writes up to here, and one interval.
        pub interval_count: u64,
        /// The last such intervals; a new one replaces the oldest.
        pub intervals: [OffCpuInterval; INTERVALS as usize],
        /// Its last time on a run queue, CLOCK_MONOTONIC, ns.
        pub last_begin: u64,
        pub last_end: u64,
        pub pad: [u64; 6],
    }
}

impl OffCpuInterval {
    /// One from `begin` to `end` of a kind.
    #[inline(always)]
    pub const fn new(begin: u64, end: u64, kind: u64) -> Self {
        Self {
            begin,
            length_and_kind: end.saturating_sub(begin) << 2 | kind,
        }
    }

    /// [`RUN_QUEUE`], [`THROTTLED`] or [`ASLEEP`].
    #[inline(always)]
    pub const fn kind(&self) -> u64 {
        self.length_and_kind & 3
    }

    /// CLOCK_MONOTONIC, ns.
    #[inline(always)]
    pub const fn end(&self) -> u64 {
        self.begin + (self.length_and_kind >> 2)
    }
}

layout!(OffCpu: 24, OffCpuInterval: 16, Thread: 192);
