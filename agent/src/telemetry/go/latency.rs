//! Scheduling latency of all goroutines, from the runtime's own sample.

use super::sched::GOROUTINE_PARENT_ID;
use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, OVERFLOW, SpanDef,
    go::{
        GC_MAX_PROCS, GOROUTINE_CREATOR_FILE, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_CREATOR_LINE, GOROUTINE_FUNCTION,
        GOROUTINE_ID, GOROUTINE_SYSTEM, GOROUTINE_WAIT_REASON,
    },
    thread::THREAD_ID,
};

pub const SAMPLE_PERIOD: &str = "go.goroutine.sample.period";

def!(
    GOROUTINE_LATENCY,
    "go.goroutine.latency.duration",
    "s",
    ExponentialHistogram,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, SAMPLE_PERIOD, OVERFLOW],
    "Time of goroutines from runnable to running, by start function: one start in eight, as the runtime samples it for /sched/latencies:seconds. Each value counts eight times, so count and sum are those of all starts. (The runtime samples the first start of a goroutine that reuses the g of one that ended nearly twice as often as it should.)",
    "uprobe: runtime.(*timeHistogram).record; before go1.20 runtime.casgstatus"
);
def!(
    GOROUTINE_RESUMED,
    "go.goroutine.resumed",
    "{start}",
    Counter,
    &[SAMPLE_PERIOD],
    "Goroutines that continued without having been runnable: after system calls (before go1.26), when their stack grew. The runtime samples them with the others, with 0 as the time. Each counts eight times.",
    "uprobe: as go.goroutine.latency.duration"
);

pub static DEFS: Defs = Defs {
    metrics: &[&GOROUTINE_LATENCY, &GOROUTINE_RESUMED],
    spans: &[SpanDef {
        name: "runnable {function}",
        description: "A goroutine of the runtime's sample waited longer than --slow-wait from runnable to running, and the probes of go.sched did not follow it.",
        source: "uprobe: as go.goroutine.latency.duration",
        attributes: &[
            GOROUTINE_ID,
            GOROUTINE_PARENT_ID,
            GOROUTINE_FUNCTION,
            GOROUTINE_SYSTEM,
            GOROUTINE_CREATOR_FUNCTION,
            GOROUTINE_CREATOR_FILE,
            GOROUTINE_CREATOR_LINE,
            GOROUTINE_WAIT_REASON,
            SAMPLE_PERIOD,
            GC_MAX_PROCS,
            THREAD_ID,
        ],
    }],
    attributes: &[AttributeDef {
        key: SAMPLE_PERIOD,
        kind: "int",
        description: "One in so many was observed, and counts for as many. Absent on a span that is not from a sample.",
    }],
};
