//! One Go GC cycle, read from `runtime.work` while it is stable: after gcMarkTermination has restarted the world and
//! before it releases gcsema (Go 1.26, runtime/mgc.go, gcMarkTermination).

use crate::{event::Header, layout, shared};

shared! {
    pub struct Cycle {
        pub header: Header,
        /// memstats.numgc: this cycle's number, from 1.
        pub number: u64,
        /// CLOCK_MONOTONIC, ns: work.tSweepTerm, tMark, tMarkTerm, tEnd.
        pub sweep_term: i64,
        pub mark: i64,
        pub mark_term: i64,
        pub end: i64,
        /// work.pauseNS: both pauses, ns.
        pub pause: i64,
        /// Heap in bytes: when the cycle began, at mark termination, and marked (live).
        pub heap_before: u64,
        pub heap_after: u64,
        pub heap_live: u64,
        /// gcController.lastHeapGoal, bytes.
        pub heap_goal: u64,
        /// CPU time of this cycle by kind, ns: gcController.assistTime, dedicatedMarkTime, fractionalMarkTime, idleMarkTime.
        pub assist: i64,
        pub dedicated: i64,
        pub fractional: i64,
        pub idle: i64,
        /// GOGC, %; negative when off.
        pub gogc: i64,
        /// GOMEMLIMIT, bytes; i64::MAX when there is none.
        pub memory_limit: i64,
        /// GOMAXPROCS at the cycle's begin.
        pub max_procs: u32,
        /// 1 when runtime.GC() or debug.FreeOSMemory started it.
        pub forced: u32,
    }
}

layout!(Cycle: 24 + 16 * 8 + 8);
