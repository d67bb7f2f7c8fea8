//! Mark assists.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::Counter,
    MetricDef, OVERFLOW,
    go::{GOROUTINE_FUNCTION, GOROUTINE_SYSTEM},
};

pub const ASSIST_FUNCTIONS: &str = "go.gc.assist.functions";
pub const ASSIST_OTHERS: &str = "go.gc.assist.others_ns";

def!(
    ASSIST_TIME,
    "go.gc.assist.time",
    "ns",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Time of mark assists, by the goroutines' start function; without the wait for credit, which is in go.goroutine.time. Of the first assist on each P in a window, up to 5 µs may belong to the previous one. In windows it varies with the number of GC cycles that they catch: go.cpu.time has the exact sum (gc/mark/assist), this metric the shares.",
    "uprobe: runtime.gcAssistAlloc1, at its end, reading p.gcAssistTime"
);
def!(
    ASSIST_COUNT,
    "go.gc.assist.count",
    "{assist}",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Mark assists, by the goroutines' start function.",
    "uprobe: as go.gc.assist.time"
);

pub static DEFS: Defs = Defs {
    metrics: &[&ASSIST_TIME, &ASSIST_COUNT],
    spans: &[],
    attributes: &[
        AttributeDef {
            key: ASSIST_FUNCTIONS,
            kind: "string[]",
            description: "Mark assists of the cycle by the goroutines' start function, each with its time in ns, largest first, five at most. Only if a window covered the whole cycle.",
        },
        AttributeDef {
            key: ASSIST_OTHERS,
            kind: "int",
            description: "Time of the cycle's assists of all other functions, ns.",
        },
    ],
};
