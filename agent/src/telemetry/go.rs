//! Go.

use super::{
    AttributeDef,
    Instrument::{Counter, Histogram, UpDownCounter},
    MetricDef, SpanDef,
    gc::{ASSIST_FUNCTIONS, ASSIST_OTHERS},
    goroutine::{GOROUTINE_CREATOR_FUNCTION, GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
    quota::CGROUP_PATH,
    stw::{
        STW_LAST_ASLEEP, STW_LAST_AT, STW_LAST_FUNCTION, STW_LAST_ID, STW_LAST_RUN_QUEUE, STW_LAST_STOPPED,
        STW_LAST_THREAD, STW_LAST_THROTTLED, STW_REQUESTED_AT, STW_REQUESTER_RUN_QUEUE, STW_REQUESTER_THROTTLED,
    },
};

pub const MEMORY_TYPE: &str = "go.memory.type";
pub const CPU_STATE: &str = "go.cpu.state";
pub const CPU_CLASS: &str = "go.cpu.detailed_state";
pub const GC_CYCLE_FORCED: &str = "go.gc.forced";
pub const GC_FORCED: &str = GC_CYCLE_FORCED;
pub const GC_PAUSE_PHASE: &str = "go.gc.pause.phase";
pub const GC_PAUSE_KIND: &str = "go.gc.pause.kind";
pub const GC_TRIGGER: &str = "go.gc.trigger";
pub const GC_GOGC: &str = "go.config.gogc";
pub const GC_MEMORY_LIMIT: &str = "go.memory.limit";
pub const GC_GOAL_BY: &str = "go.gc.heap.goal_by";
pub const GC_CYCLE: &str = "go.gc.cycle.number";
pub const GC_HEAP_BEFORE: &str = "go.gc.heap.before_bytes";
pub const GC_HEAP_AFTER: &str = "go.gc.heap.after_bytes";
pub const GC_HEAP_LIVE: &str = "go.gc.heap.live_bytes";
pub const GC_HEAP_GOAL: &str = "go.gc.heap.goal_bytes";
pub const GC_MAX_PROCS: &str = "go.processor.limit";
pub const GC_PAUSE_TOTAL: &str = "go.gc.pause.total_ns";
pub const GC_CPU_ASSIST: &str = "go.gc.cpu.assist_ns";
pub const GC_CPU_DEDICATED: &str = "go.gc.cpu.dedicated_ns";
pub const GC_CPU_FRACTIONAL: &str = "go.gc.cpu.fractional_ns";
pub const GC_CPU_IDLE: &str = "go.gc.cpu.idle_ns";

def!(
    GOROUTINE_COUNT,
    "go.goroutine.count",
    "{goroutine}",
    UpDownCounter,
    &[],
    "Live goroutines, without the runtime's own.",
    "memory: as runtime.gcount"
);
def!(
    GOROUTINE_CREATED,
    "go.goroutine.created",
    "{goroutine}",
    Counter,
    &[],
    "Goroutines created; go1.26 and later.",
    "memory: as /sched/goroutines-created"
);
def!(
    CGO_CALLS,
    "go.cgo.calls",
    "{call}",
    Counter,
    &[],
    "Calls into C, if the binary has cgo. For the number of goroutines that are in C now, see go.goroutine.alive, state `cgo`.",
    "memory: runtime.ncgocall and m.ncgocall of all Ms, as /cgo/go-to-c-calls"
);
def!(
    PROCESSOR_LIMIT,
    "go.processor.limit",
    "{thread}",
    UpDownCounter,
    &[],
    "GOMAXPROCS.",
    "memory: runtime.gomaxprocs"
);
def!(
    CONFIG_GOGC,
    "go.config.gogc",
    "%",
    UpDownCounter,
    &[],
    "GOGC; absent when off.",
    "memory: gcController.gcPercent"
);
def!(
    MEMORY_USED,
    "go.memory.used",
    "By",
    UpDownCounter,
    &[MEMORY_TYPE],
    "Memory used by the Go runtime.",
    "memory: memstats, as /memory/classes/*"
);
def!(
    MEMORY_RELEASED,
    "go.memory.released",
    "By",
    UpDownCounter,
    &[],
    "Heap memory that the scavenger returned to the kernel and that is not in use again.",
    "memory: memstats.heapStats, as /memory/classes/heap/released"
);
def!(
    MEMORY_LIMIT,
    "go.memory.limit",
    "By",
    UpDownCounter,
    &[],
    "GOMEMLIMIT; absent when there is none.",
    "memory: gcController.memoryLimit"
);
def!(
    MEMORY_ALLOCATED,
    "go.memory.allocated",
    "By",
    Counter,
    &[],
    "Bytes allocated on the heap by the application.",
    "memory: memstats.heapStats"
);
def!(
    MEMORY_ALLOCATIONS,
    "go.memory.allocations",
    "{allocation}",
    Counter,
    &[],
    "Objects allocated on the heap by the application.",
    "memory: memstats.heapStats"
);
def!(
    MEMORY_GC_GOAL,
    "go.memory.gc.goal",
    "By",
    UpDownCounter,
    &[],
    "Heap goal of the current GC cycle; absent while GOGC is off and there is no GOMEMLIMIT.",
    "memory: as gcController.heapGoal"
);
def!(
    GC_CYCLES,
    "go.memory.gc.cycles",
    "{gc_cycle}",
    Counter,
    &[GC_CYCLE_FORCED],
    "GC cycles completed.",
    "memory: memstats.numgc, numforcedgc"
);
def!(
    GC_PAUSE_DURATION,
    "go.memory.gc.pause.duration",
    "s",
    Histogram,
    &[GC_PAUSE_PHASE, GC_PAUSE_KIND],
    "Stop-the-world pauses, with the buckets of /sched/pauses/*; go1.22 and later.",
    "memory: sched.stw*Time*"
);
def!(
    SCHEDULE_DURATION,
    "go.schedule.duration",
    "s",
    Histogram,
    &[],
    "Time of goroutines from runnable to running, with the buckets of /sched/latencies; the runtime samples one switch in eight.",
    "memory: sched.timeToRun"
);

def!(
    CPU_TIME,
    "go.cpu.time",
    "s",
    Counter,
    &[CPU_STATE, CPU_CLASS],
    "CPU time as the runtime estimates it at the end of each GC cycle, which differs from the kernel's CPU time; go1.20 and later.",
    "memory: work.cpuStats, as /cpu/classes/*"
);

pub static METRICS: &[&MetricDef] = &[
    &GOROUTINE_COUNT,
    &GOROUTINE_CREATED,
    &CGO_CALLS,
    &PROCESSOR_LIMIT,
    &CPU_TIME,
    &CONFIG_GOGC,
    &MEMORY_USED,
    &MEMORY_RELEASED,
    &MEMORY_LIMIT,
    &MEMORY_ALLOCATED,
    &MEMORY_ALLOCATIONS,
    &MEMORY_GC_GOAL,
    &GC_CYCLES,
    &GC_PAUSE_DURATION,
    &SCHEDULE_DURATION,
];

/// Of the two stops of a cycle.
const GC_STOP: &[&str] = &[
    GC_CYCLE,
    STW_LAST_ID,
    STW_LAST_FUNCTION,
    STW_LAST_AT,
    STW_LAST_THREAD,
    STW_LAST_STOPPED,
    STW_LAST_RUN_QUEUE,
    STW_LAST_THROTTLED,
    STW_LAST_ASLEEP,
    STW_REQUESTER_RUN_QUEUE,
    STW_REQUESTER_THROTTLED,
    CGROUP_PATH,
];

pub static SPANS: &[SpanDef] = &[
    SpanDef {
        name: "go.gc.cycle",
        description: "A GC cycle, from the start of sweep termination to the end of mark termination; a trace of its own.",
        source: "uprobe: runtime.prepareFreeWorkbufs, reading runtime.work",
        attributes: &[
            GC_CYCLE,
            GC_HEAP_BEFORE,
            GC_HEAP_AFTER,
            GC_HEAP_LIVE,
            GC_HEAP_GOAL,
            GC_FORCED,
            GC_MAX_PROCS,
            GC_PAUSE_TOTAL,
            GC_CPU_ASSIST,
            GC_CPU_DEDICATED,
            GC_CPU_FRACTIONAL,
            GC_CPU_IDLE,
            GC_GOGC,
            GC_MEMORY_LIMIT,
            GC_GOAL_BY,
            GC_TRIGGER,
            GOROUTINE_ID,
            GOROUTINE_SYSTEM,
            GOROUTINE_FUNCTION,
            GOROUTINE_CREATOR_FUNCTION,
            STW_REQUESTED_AT,
            ASSIST_FUNCTIONS,
            ASSIST_OTHERS,
        ],
    },
    SpanDef {
        name: "go.gc.stw.sweep_termination",
        description: "The world is stopped to finish the sweep of the last cycle.",
        source: "work.tSweepTerm to work.tMark",
        attributes: GC_STOP,
    },
    SpanDef {
        name: "go.gc.mark",
        description: "Concurrent mark.",
        source: "work.tMark to work.tMarkTerm",
        attributes: &[GC_CYCLE],
    },
    SpanDef {
        name: "go.gc.stw.mark_termination",
        description: "The world is stopped to finish mark.",
        source: "work.tMarkTerm to work.tEnd",
        attributes: GC_STOP,
    },
];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: GC_TRIGGER,
        kind: "string",
        description: "Why the cycle began: `heap` (the heap reached the trigger; the goroutine is the one that allocated then), `time` (no cycle for two minutes), `forced` (the goroutine requested it).",
    },
    AttributeDef {
        key: GC_GOGC,
        kind: "int",
        description: "GOGC, %; absent when off.",
    },
    AttributeDef {
        key: GC_MEMORY_LIMIT,
        kind: "int",
        description: "GOMEMLIMIT, bytes; absent when there is none.",
    },
    AttributeDef {
        key: GC_GOAL_BY,
        kind: "string",
        description: "What set the cycle's heap goal: `gogc`, or `gomemlimit` if that goal is smaller; absent if there is a limit and the stop that began the cycle was not observed.",
    },
    AttributeDef {
        key: CPU_STATE,
        kind: "string",
        description: "`user`, `gc`, `scavenge`, or `idle`.",
    },
    AttributeDef {
        key: CPU_CLASS,
        kind: "string",
        description: "The runtime's own class, as in /cpu/classes/*: `gc/mark/assist`, `gc/pause`, ….",
    },
    AttributeDef {
        key: MEMORY_TYPE,
        kind: "string",
        description: "`stack` or `other` (everything else), as in the semantic conventions.",
    },
    AttributeDef {
        key: GC_FORCED,
        kind: "bool",
        description: "Whether runtime.GC() or debug.FreeOSMemory() requested the cycle.",
    },
    AttributeDef {
        key: GC_PAUSE_PHASE,
        kind: "string",
        description: "`total`, or `stopping`: only from the request until all Ps had stopped.",
    },
    AttributeDef {
        key: GC_PAUSE_KIND,
        kind: "string",
        description: "`gc`, or `other`: stops for another reason.",
    },
    AttributeDef {
        key: GC_CYCLE,
        kind: "int",
        description: "The cycle's number, from 1, as gctrace prints it.",
    },
    AttributeDef {
        key: GC_HEAP_BEFORE,
        kind: "int",
        description: "Live heap when the cycle began, bytes.",
    },
    AttributeDef {
        key: GC_HEAP_AFTER,
        kind: "int",
        description: "Heap at mark termination, bytes.",
    },
    AttributeDef {
        key: GC_HEAP_LIVE,
        kind: "int",
        description: "Bytes marked by the cycle: the live heap (gcController.heapMarked, gctrace's third figure).",
    },
    AttributeDef {
        key: GC_HEAP_GOAL,
        kind: "int",
        description: "Heap goal of the cycle, bytes; absent when there was none.",
    },
    AttributeDef {
        key: GC_MAX_PROCS,
        kind: "int",
        description: "GOMAXPROCS during the cycle, or when the goroutine ran.",
    },
    AttributeDef {
        key: GC_PAUSE_TOTAL,
        kind: "int",
        description: "Sum of both pauses as the runtime counts them, ns.",
    },
    AttributeDef {
        key: GC_CPU_ASSIST,
        kind: "int",
        description: "CPU time of mark assists, ns.",
    },
    AttributeDef {
        key: GC_CPU_DEDICATED,
        kind: "int",
        description: "CPU time of dedicated mark workers, ns.",
    },
    AttributeDef {
        key: GC_CPU_FRACTIONAL,
        kind: "int",
        description: "CPU time of fractional mark workers, ns.",
    },
    AttributeDef {
        key: GC_CPU_IDLE,
        kind: "int",
        description: "CPU time of idle mark workers, ns.",
    },
];
