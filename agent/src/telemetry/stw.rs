//! Stops of Go's world.

use super::{
    AttributeDef,
    Instrument::ExponentialHistogram,
    MetricDef, SpanDef,
    goroutine::{GOROUTINE_CREATOR_FUNCTION, GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
};

pub const STW_REASON: &str = "go.stw.reason";
pub const STW_ASKED_AT: &str = "go.stw.asked_at";
pub const STW_LATE_ID: &str = "go.stw.late.goroutine.id";
pub const STW_LATE_FUNCTION: &str = "go.stw.late.goroutine.function";
pub const STW_LATE_AT: &str = "go.stw.late.at";

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
];
