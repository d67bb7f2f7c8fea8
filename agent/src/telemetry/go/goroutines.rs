//! Goroutines alive.

use crate::telemetry::{
    Defs,
    Instrument::{Counter, Gauge, UpDownCounter},
    MetricDef, OVERFLOW,
    go::{
        GOROUTINE_CREATOR_FILE, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_CREATOR_LINE, GOROUTINE_FUNCTION,
        GOROUTINE_STATE, GOROUTINE_SYSTEM, GOROUTINE_WAIT_REASON,
    },
};

def!(
    GOROUTINE_ALIVE,
    "go.goroutine.alive",
    "{goroutine}",
    UpDownCounter,
    &[
        GOROUTINE_FUNCTION,
        GOROUTINE_SYSTEM,
        GOROUTINE_CREATOR_FUNCTION,
        GOROUTINE_CREATOR_FILE,
        GOROUTINE_CREATOR_LINE,
        GOROUTINE_STATE,
        GOROUTINE_WAIT_REASON,
        OVERFLOW
    ],
    "Live goroutines, including the runtime's own, by start function, go statement and state.",
    "memory: runtime.allgs"
);
def!(
    GOROUTINE_FOUND,
    "go.goroutine.found",
    "{goroutine}",
    Counter,
    &[
        GOROUTINE_FUNCTION,
        GOROUTINE_SYSTEM,
        GOROUTINE_CREATOR_FUNCTION,
        GOROUTINE_CREATOR_FILE,
        GOROUTINE_CREATOR_LINE,
        OVERFLOW
    ],
    "Goroutines that were in one scan of runtime.allgs and not in the scan before. A goroutine that begins and ends between two scans is not observed.",
    "memory: runtime.allgs"
);
def!(
    GOROUTINE_GONE,
    "go.goroutine.gone",
    "{goroutine}",
    Counter,
    &[
        GOROUTINE_FUNCTION,
        GOROUTINE_SYSTEM,
        GOROUTINE_CREATOR_FUNCTION,
        GOROUTINE_CREATOR_FILE,
        GOROUTINE_CREATOR_LINE,
        OVERFLOW
    ],
    "Goroutines that were in one scan of runtime.allgs and not in the next. go.goroutine.found minus this is the growth: where it only rises, goroutines leak.",
    "memory: runtime.allgs"
);
def!(
    GOROUTINE_LEFT_OUT,
    "go.goroutine.left_out",
    "{goroutine}",
    Gauge,
    &[],
    "Entries of runtime.allgs that the last scan skipped: after the first 1,000,000 entries or 100,000 live goroutines, or not readable.",
    "memory: runtime.allgs"
);

pub static DEFS: Defs = Defs {
    metrics: &[&GOROUTINE_ALIVE, &GOROUTINE_FOUND, &GOROUTINE_GONE, &GOROUTINE_LEFT_OUT],
    spans: &[],
    attributes: &[],
};
