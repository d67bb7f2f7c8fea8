//! Scheduling latency as the Go runtime samples it itself: of one start of a goroutine in eight it records the time from runnable to
//! running (runtime/proc.go, casgstatus; gTrackingPeriod). Each goroutine starts to count at a random number, so the sample is uniform.

use crate::{event::Header, layout, shared};

/// One start in so many is recorded: runtime.gTrackingPeriod, the same in go1.18 to go1.27 (runtime/runtime2.go).
pub const PERIOD: u64 = 8;

/// The id under which the values of all start functions are counted when a target has used half of its histogram buckets. No function
/// begins at that address.
pub const OTHERS: u32 = u32::MAX;

/// What casgstatus compares with where the histogram's method is inline, before go1.20: timeHistNumSubBuckets (runtime/histogram.go).
pub const INLINE: u16 = 16;

shared! {
    /// A goroutine of the sample that was runnable for longer than the threshold. It started to run at `header.time`.
    pub struct SlowStart {
        pub header: Header,
        /// From runnable to running, ns.
        pub time: u64,
        pub goid: u64,
        /// goid of its creator; 0 when the version does not keep it.
        pub parent_goid: u64,
        /// Program counter of the `go` statement that created it.
        pub gopc: u64,
        /// Entry of the function it was started with.
        pub startpc: u64,
        /// runtime.waitReason of its last wait; 0 when it had never waited.
        pub wait_reason: u32,
        /// GOMAXPROCS when it ran.
        pub max_procs: u32,
    }
}

layout!(SlowStart: 24 + 5 * 8 + 8);
