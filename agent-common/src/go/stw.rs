//! One stop of the world, read just before the world is started again (go1.22 and later, runtime/proc.go,
//! startTheWorldWithSema, whose argument is the worldStop).

use crate::{event::Header, layout, shared, thread::run_queue::OffCpu};

/// stwGCMarkTerm and stwGCSweepTerm: the GC's own reasons.
pub const MARK_TERMINATION: u32 = 1;
pub const SWEEP_TERMINATION: u32 = 2;

/// Reasons below this have a value of their own.
pub const REASONS: u32 = 64;

/// When stopping takes at least this long, ns, the last P to stop is reported.
pub const SLOW_STOP: u64 = 100_000;

/// What the version's worldStop holds: nothing, the reason and the start (go1.22), or all times too (go1.23 and later). Since go1.26 a
/// goroutine that is preempted for a stop stays in its P's runnext; before, it went to the end of the global run queue.
pub const NONE: u32 = 0;
pub const START: u32 = 1;
pub const TIMES: u32 = 2;
pub const PREEMPTED_IN_RUNNEXT: u32 = 3;

/// Frames of a stack: where the goroutine continues, then return addresses, innermost first.
pub const FRAMES: usize = 8;

shared! {
    pub struct Stop {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: startedStopping, finishedStopping (0 when the version does not keep it), and the end.
        pub requested: u64,
        pub stopped: u64,
        pub end: u64,
        /// The goroutine that requested the stop, its start function, and its go statement; 0 when it was no goroutine.
        pub goid: u64,
        pub startpc: u64,
        pub gopc: u64,
        /// When it took [`SLOW_STOP`]: the goroutine that was preempted last, and its start function.
        pub last_goid: u64,
        pub last_startpc: u64,
        /// Stacks of both; 0 where they end.
        pub frames: [u64; FRAMES],
        pub last_frames: [u64; FRAMES],
        /// The word on top of its stack: the return address of a function that was preempted in its prologue (runtime.morestack), where
        /// it has no frame yet.
        pub last_top: u64,
        /// When the GC begins: gcController.gcPercentHeapGoal, the goal that GOGC alone would set, bytes; 0 when unknown.
        pub percent_goal: u64,
        /// When it took [`SLOW_STOP`]: CLOCK_MONOTONIC, ns, when the last P stopped; 0 when that was not seen.
        pub last_stopped: u64,
        /// Off-CPU time of that P's thread from the request until then, and of the requester's until all had stopped. Only with `split`.
        pub last_off_cpu: OffCpu,
        pub requester_off_cpu: OffCpu,
        /// runtime.stwReason.
        pub reason: u32,
        /// work.userForced, when the GC begins.
        pub forced: u32,
        /// The thread of the P that stopped last; 0 when that was not seen.
        pub last_tid: u32,
        /// 1 when the hooks counted all the time.
        pub split: u32,
    }
}

shared! {
    /// The P that stopped last, for a stop of the world.
    pub struct Last {
        /// CLOCK_MONOTONIC, ns.
        pub time: u64,
        /// Address of the g that was preempted; 0 when there was none.
        pub g: u64,
        /// The thread that ran it.
        pub tid: u64,
    }
}

layout!(Last: 24, Stop: 24 + 10 * 8 + 2 * FRAMES * 8 + 8 + 2 * 24 + 16);
