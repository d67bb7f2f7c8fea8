//! Stops of Go's world.

use super::{
    AttributeDef,
    Instrument::ExponentialHistogram,
    MetricDef, SpanDef,
    goroutine::{GOROUTINE_CREATOR_FUNCTION, GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
    quota::CGROUP_PATH,
};

pub const STW_REASON: &str = "go.stw.reason";
pub const STW_ASKED_AT: &str = "go.stw.asked_at";
pub const STW_LATE_ID: &str = "go.stw.late.goroutine.id";
pub const STW_LATE_FUNCTION: &str = "go.stw.late.goroutine.function";
pub const STW_LATE_AT: &str = "go.stw.late.at";
pub const STW_LATE_THREAD: &str = "go.stw.late.thread.id";
pub const STW_LATE_STOPPED: &str = "go.stw.late.stopped_ns";
pub const STW_LATE_RUN_QUEUE: &str = "go.stw.late.run_queue_ns";
pub const STW_LATE_THROTTLED: &str = "go.stw.late.throttled_ns";
pub const STW_LATE_ASLEEP: &str = "go.stw.late.asleep_ns";
pub const STW_ASKER_RUN_QUEUE: &str = "go.stw.asker.run_queue_ns";
pub const STW_ASKER_THROTTLED: &str = "go.stw.asker.throttled_ns";

def!(
    STW_DURATION,
    "go.stw.duration",
    "s",
    ExponentialHistogram,
    &[STW_REASON],
    "Stops of the world, from asking to stop until it is started again, by the runtime's reason; go1.22 and later.",
    "uprobe: runtime.startTheWorldWithSema"
);

pub static METRICS: &[&MetricDef] = &[&STW_DURATION];

pub static SPANS: &[SpanDef] = &[
    SpanDef {
        name: "go.stw {reason}",
        description: "The world was stopped for another reason than the GC; a trace of its own. The goroutine is the one that asked.",
        source: "uprobe: runtime.startTheWorldWithSema; go1.22 and later",
        attributes: &[
            STW_REASON,
            GOROUTINE_ID,
            GOROUTINE_SYSTEM,
            GOROUTINE_FUNCTION,
            GOROUTINE_CREATOR_FUNCTION,
            STW_ASKED_AT,
            STW_LATE_ID,
            STW_LATE_FUNCTION,
            STW_LATE_AT,
            STW_LATE_THREAD,
            STW_LATE_STOPPED,
            STW_LATE_RUN_QUEUE,
            STW_LATE_THROTTLED,
            STW_LATE_ASLEEP,
            STW_ASKER_RUN_QUEUE,
            STW_ASKER_THROTTLED,
            CGROUP_PATH,
        ],
    },
    SpanDef {
        name: "go.stw.stopping",
        description: "A part of a stop: from asking to stop until all had stopped.",
        source: "worldStop.startedStopping to finishedStopping; go1.23 and later",
        attributes: &[],
    },
    SpanDef {
        name: "go.stw.stopped",
        description: "A part of a stop: from the moment all had stopped until the world was started again.",
        source: "worldStop.finishedStopping to runtime.startTheWorldWithSema",
        attributes: &[],
    },
];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: STW_REASON,
        kind: "string",
        description: "Why the world was stopped, in the runtime's words.",
    },
    AttributeDef {
        key: STW_ASKED_AT,
        kind: "string",
        description: "Where the goroutine that asked stood: the innermost function of its stack that is not package runtime's, file and line.",
    },
    AttributeDef {
        key: STW_LATE_ID,
        kind: "int",
        description: "The goroutine that was preempted last before all had stopped, when that took 100 µs or more.",
    },
    AttributeDef {
        key: STW_LATE_FUNCTION,
        kind: "string",
        description: "The function that it was started with.",
    },
    AttributeDef {
        key: STW_LATE_AT,
        kind: "string",
        description: "Where it gave way: the innermost function of its stack that is not package runtime's, file and line.",
    },
    AttributeDef {
        key: STW_LATE_THREAD,
        kind: "int",
        description: "Tid of the thread whose P stopped last, when stopping took 100 µs or more.",
    },
    AttributeDef {
        key: STW_LATE_STOPPED,
        kind: "int",
        description: "From asking until that P stopped, ns. What is left of stopping is the asker's: it had to be woken.",
    },
    AttributeDef {
        key: STW_LATE_RUN_QUEUE,
        kind: "int",
        description: "Of that time, its thread waited for a core, ns: of its last four times off its core, as are the next two. Absent when the kernel's hooks did not count all the while.",
    },
    AttributeDef {
        key: STW_LATE_THROTTLED,
        kind: "int",
        description: "Of the same, it was throttled by its cgroup's quota, ns.",
    },
    AttributeDef {
        key: STW_LATE_ASLEEP,
        kind: "int",
        description: "Of the same, it slept in the kernel, ns.",
    },
    AttributeDef {
        key: STW_ASKER_RUN_QUEUE,
        kind: "int",
        description: "Until all had stopped, the thread that asked waited for a core itself, ns.",
    },
    AttributeDef {
        key: STW_ASKER_THROTTLED,
        kind: "int",
        description: "The same, it was throttled by its cgroup's quota, ns.",
    },
];
