//! GC cycles.

use crate::telemetry::{
    AttributeDef, Defs, SpanDef,
    go::assist::{ASSIST_FUNCTIONS, ASSIST_OTHERS},
    go::stw::{
        STW_LAST_ASLEEP, STW_LAST_AT, STW_LAST_FUNCTION, STW_LAST_ID, STW_LAST_RUN_QUEUE, STW_LAST_STOPPED,
        STW_LAST_THREAD, STW_LAST_THROTTLED, STW_REQUESTED_AT, STW_REQUESTER_RUN_QUEUE, STW_REQUESTER_THROTTLED,
    },
    go::{GC_MAX_PROCS, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
    process::quota::CGROUP_PATH,
};

pub const GC_TRIGGER: &str = "go.gc.trigger";
pub const GC_GOGC: &str = "go.config.gogc";
pub const GC_MEMORY_LIMIT: &str = "go.memory.limit";
pub const GC_GOAL_BY: &str = "go.gc.heap.goal_by";
pub const GC_FORCED: &str = "go.gc.forced";
pub const GC_CYCLE: &str = "go.gc.cycle.number";
pub const GC_HEAP_BEFORE: &str = "go.gc.heap.before_bytes";
pub const GC_HEAP_AFTER: &str = "go.gc.heap.after_bytes";
pub const GC_HEAP_LIVE: &str = "go.gc.heap.live_bytes";
pub const GC_HEAP_GOAL: &str = "go.gc.heap.goal_bytes";
pub const GC_PAUSE_TOTAL: &str = "go.gc.pause.total_ns";
pub const GC_CPU_ASSIST: &str = "go.gc.cpu.assist_ns";
pub const GC_CPU_DEDICATED: &str = "go.gc.cpu.dedicated_ns";
pub const GC_CPU_FRACTIONAL: &str = "go.gc.cpu.fractional_ns";
pub const GC_CPU_IDLE: &str = "go.gc.cpu.idle_ns";

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

pub static DEFS: Defs = Defs {
    metrics: &[],
    spans: &[
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
    ],
    attributes: &[
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
            key: GC_FORCED,
            kind: "bool",
            description: "Whether runtime.GC() or debug.FreeOSMemory() requested the cycle.",
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
    ],
};
