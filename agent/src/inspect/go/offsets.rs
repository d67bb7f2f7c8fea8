//! Where the Go runtime keeps what this agent reads: one struct a runtime type, filled from the binary's own DWARF or, without it, from
//! offsets.json.
//!
//! Field names and meanings: go1.26, src/runtime (the file is named at each struct). A field that came or went between go1.18
//! and go1.27 is an `Option`. An atomic's location is that of its value (internal/runtime/atomic: the value comes first).

use super::super::InspectError;
use super::GO_SUPPORTED;
use super::dwarf::FieldLoc;
use super::histogram::TimeHistogramOffsets;
use super::layouts::Layouts;

/// Declares a struct of field locations together with the path of each field; `maybe` fields may be absent.
macro_rules! offsets {
    ($(#[$doc:meta])* pub struct $name:ident of $root:literal
        need {$($(#[$need_doc:meta])* $need:ident: $need_path:literal,)*}
        maybe {$($(#[$maybe_doc:meta])* $maybe:ident: $maybe_path:literal,)*}
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$need_doc])* pub $need: FieldLoc,)*
            $($(#[$maybe_doc])* pub $maybe: Option<FieldLoc>,)*
        }

        impl $name {
            pub(super) fn read(types: &impl Layouts) -> Result<Self, InspectError> {
                Ok(Self {
                    $($need: types.field($root, $need_path).ok_or_else(|| missing($root, $need_path))?,)*
                    $($maybe: types.field($root, $maybe_path),)*
                })
            }
        }
    };
}

mod check;
mod gc;

pub use gc::{HeapOffsets, LimiterOffsets, ScavengeOffsets, SweepOffsets};

offsets! {
    /// `runtime.g`, a goroutine (runtime2.go).
    pub struct GOffsets of "runtime.g"
    need {
        /// Goroutine id; 0 for an M's g0.
        goid: "goid",
        /// PC of the go statement that created it.
        gopc: "gopc",
        /// PC of the function it was started with.
        startpc: "startpc",
        /// Why it waits, or waited last (waitReason, an index into runtime.waitReasonStrings).
        waitreason: "waitreason",
        /// nanotime() since when it may be blocked; only set by the GC's own checks (ns).
        waitsince: "waitsince",
        /// _Grunnable 1, _Grunning 2, _Gsyscall 3, _Gwaiting 4, _Gdead 6; _Gscan 0x1000 is or-ed in.
        atomicstatus: "atomicstatus",
        /// The M it runs on; 0 if none.
        m: "m",
        /// The next g of a gList or gQueue.
        schedlink: "schedlink",
        /// Asked to give way; until it runs again.
        preempt: "preempt",
        /// PC where it goes on.
        sched_pc: "sched.pc",
        /// Stack pointer there.
        sched_sp: "sched.sp",
        /// Frame pointer there.
        sched_bp: "sched.bp",
        /// Return address of a function without a frame there, on arm64.
        sched_lr: "sched.lr",
        /// Bounds of its stack.
        stack_lo: "stack.lo",
        stack_hi: "stack.hi",
        /// Stack pointer and PC with which it is in a system call; 0 when it is in none.
        syscallsp: "syscallsp",
        syscallpc: "syscallpc",
        /// How often it stopped running so far; 8 bits.
        tracking_seq: "trackingSeq",
        /// The M that it is bound to (runtime.LockOSThread); 0 if none.
        lockedm: "lockedm",
    }
    maybe {
        /// goid of the goroutine that created it (since go1.21).
        parent_goid: "parentGoid",
        /// nanotime() of the last change of status that scheduling latency tracks (ns).
        tracking_stamp: "trackingStamp",
        /// Time spent runnable since tracking began (ns).
        runnable_time: "runnableTime",
        /// Whether it is doing a mark assist (since go1.23).
        in_mark_assist: "inMarkAssist",
        /// Bytes it may allocate before it must assist; negative is debt.
        gc_assist_bytes: "gcAssistBytes",
    }
}

offsets! {
    /// `runtime.m`, a thread (runtime2.go).
    pub struct MOffsets of "runtime.m"
    need {
        /// Thread id.
        procid: "procid",
        /// The goroutine that runs.
        curg: "curg",
        /// The runtime's own number for it.
        id: "id",
        /// The P it holds; 0 in a system call or idle.
        p: "p",
    }
    maybe {
        /// The next M on runtime.allm.
        alllink: "alllink",
        /// In a call into C.
        incgo: "incgo",
        /// Calls into C that it made.
        ncgocall: "ncgocall",
    }
}

offsets! {
    /// `runtime.p`, a processor (runtime2.go).
    pub struct POffsets of "runtime.p"
    need {
        id: "id",
        /// _Pidle 0, _Prunning 1, _Psyscall 2 (until go1.25), _Pgcstop 3, _Pdead 4.
        status: "status",
        runqhead: "runqhead",
        runqtail: "runqtail",
        runnext: "runnext",
    }
    maybe {
        /// Number of dead goroutines cached here (gcount() subtracts it), until go1.25.
        g_free_n: "gFree.n",
        /// The same, since go1.26.
        g_free_size: "gFree.size",
        /// Goroutines created by it so far (since go1.26).
        goroutines_created: "goroutinesCreated",
        /// Time of mark assists that was not added to gcController.assistTime yet (ns).
        gc_assist_time: "gcAssistTime",
    }
}

offsets! {
    /// `runtime.schedt`, the type of `runtime.sched` (runtime2.go).
    pub struct SchedOffsets of "runtime.schedt"
    need {
        /// System goroutines, which gcount() leaves out.
        ngsys: "ngsys",
        /// Ps that nobody holds.
        npidle: "npidle",
        /// The last g of the global run queue.
        runq_tail: "runq.tail",
    }
    maybe {
        /// Ms made so far, and the next one's id.
        mnext: "mnext",
        /// Ms that ended.
        nmfreed: "nmfreed",
        /// Ms that wait for work.
        nmidle: "nmidle",
        /// Length of the global run queue: `runqsize` until go1.24; see `runq_size`.
        runqsize: "runqsize",
        /// The same, since go1.25.
        runq_size: "runq.size",
        /// Dead goroutines in the global list, until go1.25.
        g_free_n: "gFree.n",
        /// Dead goroutines with a stack, since go1.26.
        g_free_stack_size: "gFree.stack.size",
        /// Dead goroutines without a stack, since go1.26.
        g_free_no_stack_size: "gFree.noStack.size",
        /// timeHistogram: /sched/latencies (one switch in eight is sampled).
        time_to_run: "timeToRun",
        /// timeHistogram: /sched/pauses/total/gc (since go1.22; before that `memstats.gcPauseDist`, of other meaning).
        stw_total_gc: "stwTotalTimeGC",
        /// timeHistogram: /sched/pauses/stopping/gc (since go1.22).
        stw_stopping_gc: "stwStoppingTimeGC",
        /// timeHistogram: /sched/pauses/total/other (since go1.22).
        stw_total_other: "stwTotalTimeOther",
        /// timeHistogram: /sched/pauses/stopping/other (since go1.22).
        stw_stopping_other: "stwStoppingTimeOther",
        /// Goroutines created without a P (since go1.26).
        goroutines_created: "goroutinesCreated",
    }
}

offsets! {
    /// `runtime.work`, the state of the GC cycle (mgc.go). Its cpuStats are cumulative ns since the start (since go1.20).
    pub struct WorkOffsets of "runtime.work"
    need {
        /// Cycles begun (the number of the cycle under way or last done).
        cycles: "cycles",
        /// nanotime() of sweep termination's start (CLOCK_MONOTONIC, ns).
        t_sweep_term: "tSweepTerm",
        /// nanotime() of concurrent mark's start: the world was started again (ns).
        t_mark: "tMark",
        /// nanotime() of mark termination's start: the world was stopped (ns).
        t_mark_term: "tMarkTerm",
        /// nanotime() of the cycle's end: the world is about to be started (ns).
        t_end: "tEnd",
        /// Total stop-the-world time of the cycle (ns).
        pause_ns: "pauseNS",
        /// Heap live at the cycle's start (bytes).
        heap0: "heap0",
        /// Heap live at mark termination's start (bytes).
        heap1: "heap1",
        /// Heap marked by the cycle (bytes).
        heap2: "heap2",
        /// gcBackgroundMode 0, gcForceMode 1, gcForceBlockMode 2.
        mode: "mode",
        /// runtime.GC() or debug.FreeOSMemory() began the cycle.
        user_forced: "userForced",
        /// GOMAXPROCS at the last stop of the world.
        stwprocs: "stwprocs",
        maxprocs: "maxprocs",
    }
    maybe {
        /// gcController.heapLive at the cycle's start (bytes).
        initial_heap_live: "initialHeapLive",
        /// Heap goal of the cycle (bytes), go1.18 only; later it is `gc_controller.last_heap_goal`.
        heap_goal: "heapGoal",
        cpu_gc_assist: "cpuStats.GCAssistTime",
        cpu_gc_dedicated: "cpuStats.GCDedicatedTime",
        cpu_gc_idle: "cpuStats.GCIdleTime",
        cpu_gc_pause: "cpuStats.GCPauseTime",
        cpu_gc_total: "cpuStats.GCTotalTime",
        cpu_scavenge_assist: "cpuStats.ScavengeAssistTime",
        cpu_scavenge_background: "cpuStats.ScavengeBgTime",
        cpu_scavenge_total: "cpuStats.ScavengeTotalTime",
        cpu_idle: "cpuStats.IdleTime",
        cpu_user: "cpuStats.UserTime",
        cpu_total: "cpuStats.TotalTime",
    }
}

offsets! {
    /// `runtime.gcController` (mgcpacer.go). Since go1.19 /gc/heap/goal is computed from it by heapGoalInternal().
    pub struct GcControllerOffsets of "runtime.gcController"
    need {
        /// GOGC in percent, -1 when off (/gc/gogc).
        gc_percent: "gcPercent",
        /// Live heap as estimated now (bytes).
        heap_live: "heapLive",
        /// Heap marked by the last cycle (bytes; /gc/heap/live).
        heap_marked: "heapMarked",
        heap_minimum: "heapMinimum",
        heap_scan: "heapScan",
        globals_scan: "globalsScan",
    }
    maybe {
        /// Goal of the cycle before the one under way (bytes).
        last_heap_goal: "lastHeapGoal",
        /// The goal itself, go1.18 only (bytes).
        heap_goal: "heapGoal",
        /// GOMEMLIMIT in bytes, max i64 when off (/gc/gomemlimit; since go1.19).
        memory_limit: "memoryLimit",
        /// Goal by GOGC alone (bytes; since go1.19).
        gc_percent_heap_goal: "gcPercentHeapGoal",
        sweep_dist_min_trigger: "sweepDistMinTrigger",
        /// Heap live when the cycle under way was triggered, all ones when none is (bytes).
        triggered: "triggered",
        last_stack_scan: "lastStackScan",
        /// CPU time of the cycle by kind (ns).
        assist_time: "assistTime",
        dedicated_mark_time: "dedicatedMarkTime",
        fractional_mark_time: "fractionalMarkTime",
        idle_mark_time: "idleMarkTime",
        heap_in_use: "heapInUse",
        heap_released: "heapReleased",
        heap_free: "heapFree",
        total_alloc: "totalAlloc",
        total_free: "totalFree",
        mapped_ready: "mappedReady",
    }
}

offsets! {
    /// `runtime.mstats`, the type of `runtime.memstats` (mstats.go).
    pub struct MemStatsOffsets of "runtime.mstats"
    need {
        /// heapStatsDelta\[3\]; their sum is what runtime/metrics reports (consistentHeapStats.unsafeRead).
        heap_stats: "heapStats.stats",
        stacks_sys: "stacks_sys",
        mspan_sys: "mspan_sys",
        mcache_sys: "mcache_sys",
        buckhash_sys: "buckhash_sys",
        gc_misc_sys: "gcMiscSys",
        other_sys: "other_sys",
        /// Cycles done (/gc/cycles/total).
        numgc: "numgc",
        numforcedgc: "numforcedgc",
        /// nanotime() of the last cycle's end (ns).
        last_gc_nanotime: "last_gc_nanotime",
        pause_total_ns: "pause_total_ns",
    }
    maybe {
        /// timeHistogram of GC pauses, until go1.21.
        gc_pause_dist: "gcPauseDist",
    }
}

offsets! {
    /// `runtime.heapStatsDelta` (mstats.go); bytes and counts, each signed or wrapping: sum the three of `heap_stats`.
    pub struct HeapStatsOffsets of "runtime.heapStatsDelta"
    need {
        committed: "committed",
        released: "released",
        in_heap: "inHeap",
        in_stacks: "inStacks",
        in_work_bufs: "inWorkBufs",
        tiny_alloc_count: "tinyAllocCount",
        large_alloc: "largeAlloc",
        large_alloc_count: "largeAllocCount",
        /// u64 per size class; bytes are counts times `globals.size_class_to_size`.
        small_alloc_count: "smallAllocCount",
        large_free: "largeFree",
        large_free_count: "largeFreeCount",
        small_free_count: "smallFreeCount",
    }
    maybe {
        /// Memory for pointer bitmaps, until go1.22 (part of /memory/classes/metadata/other).
        in_ptr_scalar_bits: "inPtrScalarBits",
    }
}

offsets! {
    /// `runtime.pollDesc` (netpoll.go): what netpollready's second argument points at.
    pub struct PollDescOffsets of "runtime.pollDesc"
    need {
        /// pdNil 0, pdReady 1, pdWait 2, else the g that waits for reading.
        rg: "rg",
        /// The same for writing.
        wg: "wg",
        fd: "fd",
    }
    maybe {}
}

offsets! {
    /// `runtime.gList` (proc.go): linked by g.schedlink.
    pub struct GListOffsets of "runtime.gList"
    need {
        head: "head",
    }
    maybe {
        size: "size",
    }
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoOffsets {
    pub g: GOffsets,
    pub m: MOffsets,
    pub p: POffsets,
    pub sched: SchedOffsets,
    pub work: WorkOffsets,
    pub gc_controller: GcControllerOffsets,
    pub memstats: MemStatsOffsets,
    pub heap_stats: HeapStatsOffsets,
    /// Size of one heapStatsDelta in bytes.
    pub heap_stats_size: u64,
    pub limiter: LimiterOffsets,
    pub heap: HeapOffsets,
    pub sweep: SweepOffsets,
    pub scavenge: ScavengeOffsets,
    pub poll_desc: PollDescOffsets,
    pub g_list: GListOffsets,
    pub time_histogram: TimeHistogramOffsets,
}

impl GoOffsets {
    pub(super) fn read(types: &impl Layouts) -> Result<Self, InspectError> {
        let offsets = Self::found(types)?;
        offsets.check()?;
        Ok(offsets)
    }

    fn found(types: &impl Layouts) -> Result<Self, InspectError> {
        Ok(Self {
            g: GOffsets::read(types)?,
            m: MOffsets::read(types)?,
            p: POffsets::read(types)?,
            sched: SchedOffsets::read(types)?,
            work: WorkOffsets::read(types)?,
            gc_controller: GcControllerOffsets::read(types)?,
            memstats: MemStatsOffsets::read(types)?,
            heap_stats: HeapStatsOffsets::read(types)?,
            heap_stats_size: types
                .size_of("runtime.heapStatsDelta")
                .ok_or_else(|| missing("runtime.heapStatsDelta", "its size"))?,
            limiter: LimiterOffsets::read(types)?,
            heap: HeapOffsets::read(types)?,
            sweep: SweepOffsets::read(types)?,
            scavenge: ScavengeOffsets::read(types)?,
            poll_desc: PollDescOffsets::read(types)?,
            g_list: GListOffsets::read(types)?,
            time_histogram: TimeHistogramOffsets::read(types)?,
        })
    }
}

pub(super) fn missing(root: &str, path: &str) -> InspectError {
    InspectError::UnexpectedLayout {
        what: format!("{root}.{path}"),
        detail: "the binary's DWARF, or offsets.json, hasn't got it".into(),
        supported: GO_SUPPORTED,
    }
}
