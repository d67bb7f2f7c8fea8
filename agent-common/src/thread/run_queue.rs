//! A thread that is off its core: runnable and waiting for one, or asleep.

use crate::{layout, shared};

/// What a thread does off its core.
pub const RUN_QUEUE: u64 = 0;
pub const THROTTLED: u64 = 1;
pub const ASLEEP: u64 = 2;

/// Times off its core that are remembered of a thread one by one, a power of two; and from how long on, ns.
pub const INTERVALS: u64 = 4;
pub const MIN_INTERVAL: u64 = 10_000;

shared! {
    /// Time that a thread was off its core, ns, summed up while the hooks counted.
    pub struct OffCpu {
        /// Runnable, waiting for a core.
        pub run_queue: u64,
        /// The same, begun while its cgroup was throttled.
        pub throttled: u64,
        /// Asleep.
        pub blocked: u64,
    }

    /// A time off its core.
    pub struct OffCpuInterval {
        /// CLOCK_MONOTONIC, ns.
        pub begin: u64,
        pub end: u64,
        /// [`RUN_QUEUE`], [`THROTTLED`] or [`ASLEEP`].
        pub kind: u64,
    }

    /// What a thread does, and whose it is.
    pub struct Thread {
        /// CLOCK_MONOTONIC, ns: since when all that it does is seen. Before [`crate::target::Target::threads_since`]: it is not, and
        /// what stands here is of an earlier window, or of a thread that had its tid.
        pub known: u64,
        /// CLOCK_MONOTONIC, ns: since when it waits for a core; 0 when it does not.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: since when it is asleep; 0 when it is not.
        pub asleep: u64,
        pub off_cpu: OffCpu,
        /// Its last wait for a core, CLOCK_MONOTONIC, ns.
        pub last_begin: u64,
        pub last_end: u64,
        /// The target's id.
        pub target_id: u32,
        /// 1 when the present wait, or else the last, began while its cgroup was throttled.
        pub throttled: u32,
        /// Times of [`MIN_INTERVAL`] and over, each in the place of the oldest.
        pub intervals: [OffCpuInterval; INTERVALS as usize],
        /// How many there were.
        pub interval_count: u64,
    }
}

layout!(OffCpu: 24, OffCpuInterval: 24, Thread: 72 + 24 * INTERVALS as usize + 8);
