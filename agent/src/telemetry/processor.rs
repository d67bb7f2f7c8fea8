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
    "Ms: threads of the Go runtime. With cgo those are among them that it keeps in reserve for C threads.",
    "memory: sched.mnext less nmfreed, as runtime.mcount and, without cgo, /sched/threads/total"
);
def!(
    THREAD_IDLE,
    "go.thread.idle",
    "{thread}",
    UpDownCounter,
    &[],
    "Of them, those that sleep as there is nothing to run for them.",
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
    "Ms that ended: a goroutine did that was locked to its thread.",
    "memory: sched.nmfreed"
);
def!(
    HANDOFFS,
    "go.processor.handoffs",
    "{handoff}",
    Counter,
    &[HANDOFF_REASON],
    "Ps that were taken from a thread, or given away by it, for others to run.",
    "uprobe: runtime.handoffp"
);

pub static METRICS: &[&MetricDef] = &[&THREAD_COUNT, &THREAD_IDLE, &THREAD_CREATED, &THREAD_ENDED, &HANDOFFS];

pub static ATTRIBUTES: &[AttributeDef] = &[AttributeDef {
    key: HANDOFF_REASON,
    kind: "string",
    description: "`sysmon`: its thread had been in a system call for more than one look of sysmon's; `blocking_call`: a call that the runtime knew would block; `locked_thread`: its thread waits for the goroutine that is locked to it; `thread_exit`; `safe_point`: the runtime wanted something done on each P; `other`.",
}];
