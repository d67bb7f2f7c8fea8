//! Stops of the world.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::ExponentialHistogram,
    MetricDef, SpanDef,
    go::{GOROUTINE_CREATOR_FUNCTION, GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
    process::quota::CGROUP_PATH,
};

pub const STW_REASON: &str = "go.stw.reason";
pub const STW_REQUESTED_AT: &str = "go.stw.requested_at";
pub const STW_LAST_ID: &str = "go.stw.last_to_stop.goroutine.id";
pub const STW_LAST_FUNCTION: &str = "go.stw.last_to_stop.goroutine.function";
pub const STW_LAST_AT: &str = "go.stw.last_to_stop.at";
pub const STW_LAST_THREAD: &str = "go.stw.last_to_stop.thread.id";
pub const STW_LAST_STOPPED: &str = "go.stw.last_to_stop.stopped_ns";
pub const STW_LAST_RUN_QUEUE: &str = "go.stw.last_to_stop.run_queue_ns";
pub const STW_LAST_THROTTLED: &str = "go.stw.last_to_stop.throttled_ns";
pub const STW_LAST_ASLEEP: &str = "go.stw.last_to_stop.asleep_ns";
pub const STW_REQUESTER_RUN_QUEUE: &str = "go.stw.requester.run_queue_ns";
pub const STW_REQUESTER_THROTTLED: &str = "go.stw.requester.throttled_ns";

def!(
    STW_DURATION,
    "go.stw.duration",
    "s",
    ExponentialHistogram,
    &[STW_REASON],
    "Duration of stops of the world, from the request to the restart, by the runtime's reason; go1.22 and later.",
    "uprobe: runtime.startTheWorldWithSema"
);

pub static DEFS: Defs = Defs {
    metrics: &[&STW_DURATION],
    spans: &[
        SpanDef {
            name: "go.stw {reason}",
            description: "The world was stopped for another reason than the GC; a trace of its own. The goroutine is the one that requested the stop.",
            source: "uprobe: runtime.startTheWorldWithSema; go1.22 and later",
            attributes: &[
                STW_REASON,
                GOROUTINE_ID,
                GOROUTINE_SYSTEM,
                GOROUTINE_FUNCTION,
                GOROUTINE_CREATOR_FUNCTION,
                STW_REQUESTED_AT,
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
            ],
        },
        SpanDef {
            name: "go.stw.stopping",
            description: "First part of a stop: from the request until all Ps had stopped.",
            source: "worldStop.startedStopping to finishedStopping; go1.23 and later",
            attributes: &[],
        },
        SpanDef {
            name: "go.stw.stopped",
            description: "Second part of a stop: from the time when all Ps had stopped to the restart of the world.",
            source: "worldStop.finishedStopping to runtime.startTheWorldWithSema",
            attributes: &[],
        },
    ],
    attributes: &[
        AttributeDef {
            key: STW_REASON,
            kind: "string",
            description: "Reason of the stop, as in the runtime.",
        },
        AttributeDef {
            key: STW_REQUESTED_AT,
            kind: "string",
            description: "Where the goroutine requested the stop: the innermost function of its stack outside package runtime, with file and line.",
        },
        AttributeDef {
            key: STW_LAST_ID,
            kind: "int",
            description: "The last goroutine to stop, if stopping took 100 µs or more.",
        },
        AttributeDef {
            key: STW_LAST_FUNCTION,
            kind: "string",
            description: "Start function of the last goroutine to stop.",
        },
        AttributeDef {
            key: STW_LAST_AT,
            kind: "string",
            description: "Where the last goroutine to stop was preempted: the innermost function of its stack outside package runtime, with file and line.",
        },
        AttributeDef {
            key: STW_LAST_THREAD,
            kind: "int",
            description: "Tid of the last thread to stop: that of the last P, if stopping took 100 µs or more.",
        },
        AttributeDef {
            key: STW_LAST_STOPPED,
            kind: "int",
            description: "Time from the request until the last P stopped, ns. In the rest of stopping, the thread that requested the stop had to be woken.",
        },
        AttributeDef {
            key: STW_LAST_RUN_QUEUE,
            kind: "int",
            description: "Part of that time in which the last thread to stop waited for a core, ns. This attribute and the next two include only the last four times when the thread was off-CPU. Absent if the kernel's hooks did not count the whole time.",
        },
        AttributeDef {
            key: STW_LAST_THROTTLED,
            kind: "int",
            description: "Part of that time in which the cgroup's quota throttled the last thread to stop, ns.",
        },
        AttributeDef {
            key: STW_LAST_ASLEEP,
            kind: "int",
            description: "Part of that time in which the last thread to stop slept in the kernel, ns.",
        },
        AttributeDef {
            key: STW_REQUESTER_RUN_QUEUE,
            kind: "int",
            description: "Part of stopping in which the thread that requested the stop waited for a core itself, ns.",
        },
        AttributeDef {
            key: STW_REQUESTER_THROTTLED,
            kind: "int",
            description: "Part of stopping in which the cgroup's quota throttled the thread that requested the stop, ns.",
        },
    ],
};
