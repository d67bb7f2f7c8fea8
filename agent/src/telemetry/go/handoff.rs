//! Handoffs of Ps.

use crate::telemetry::{AttributeDef, Defs, Instrument::Counter, MetricDef};

pub const HANDOFF_REASON: &str = "go.processor.handoff.reason";

def!(
    HANDOFFS,
    "go.processor.handoffs",
    "{handoff}",
    Counter,
    &[HANDOFF_REASON],
    "Handoffs of a P from one thread to another.",
    "uprobe: runtime.handoffp"
);

pub static DEFS: Defs = Defs {
    metrics: &[&HANDOFFS],
    spans: &[],
    attributes: &[AttributeDef {
        key: HANDOFF_REASON,
        kind: "string",
        description: "`sysmon`: two checks of sysmon found its thread in the same system call; `blocking_call`: the runtime knew that the call would block; `locked_thread`: its thread waits for the goroutine that is locked to it; `thread_exit`; `safe_point`: the runtime runs a function on each P; `other`.",
    }],
};
