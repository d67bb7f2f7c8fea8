//! Go's Ms, its threads, and the Ps that they pass on.

use super::{
    AttributeDef,
    Instrument::{Counter, UpDownCounter},
    MetricDef,
};

pub const HANDOFF_REASON: &str = "go.processor.handoff.reason";

def!(
    THREAD_COUNT,
    "go.thread.count",
    "{thread}",
    UpDownCounter,
    &[],
    "Ms: threads of the Go runtime. With cgo, this includes the Ms that it keeps in reserve for C threads.",
    "memory: sched.mnext less nmfreed, as runtime.mcount and, without cgo, /sched/threads/total"
);
def!(
    THREAD_IDLE,
    "go.thread.idle",
    "{thread}",
    UpDownCounter,
    &[],
    "Ms that sleep because there is nothing to run.",
    "memory: sched.nmidle"
);
def!(
    THREAD_CREATED,
    "go.thread.created",
    "{thread}",
    Counter,
    &[],
    "Ms created.",
    "memory: sched.mnext"
);
def!(
    THREAD_ENDED,
    "go.thread.ended",
    "{thread}",
    Counter,
    &[],
    "Ms that ended, because a goroutine ended that was locked to its thread.",
    "memory: sched.nmfreed"
);
def!(
    HANDOFFS,
    "go.processor.handoffs",
    "{handoff}",
    Counter,
    &[HANDOFF_REASON],
    "Handoffs of a P from one thread to another.",
    "uprobe: runtime.handoffp"
);

pub static METRICS: &[&MetricDef] = &[&THREAD_COUNT, &THREAD_IDLE, &THREAD_CREATED, &THREAD_ENDED, &HANDOFFS];

pub static ATTRIBUTES: &[AttributeDef] = &[AttributeDef {
    key: HANDOFF_REASON,
    kind: "string",
    description: "`sysmon`: two checks of sysmon found its thread in the same system call; `blocking_call`: the runtime knew that the call would block; `locked_thread`: its thread waits for the goroutine that is locked to it; `thread_exit`; `safe_point`: the runtime runs a function on each P; `other`.",
}];
