//! Where the wall time of goroutines goes, from looks.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::Counter,
    MetricDef, OVERFLOW,
    go::{GOROUTINE_FUNCTION, GOROUTINE_STATE, GOROUTINE_SYSTEM, GOROUTINE_WAIT_REASON},
};

pub const LOOK_LATE: &str = "go.goroutine.wall.look.late";

def!(
    GOROUTINE_WALL_TIME,
    "go.goroutine.wall.time",
    "s",
    Counter,
    &[
        GOROUTINE_FUNCTION,
        GOROUTINE_SYSTEM,
        GOROUTINE_STATE,
        GOROUTINE_WAIT_REASON,
        OVERFLOW
    ],
    "Wall time of all goroutines, including the runtime's own, by start function, state and wait reason: an unbiased estimate from looks at a random part of them. Its rate is the mean number of goroutines; divided by the rate of all, it is their share.",
    "memory: runtime.allgs"
);
def!(
    GOROUTINE_WALL_VARIANCE,
    "go.goroutine.wall.variance",
    "s2",
    Counter,
    &[
        GOROUTINE_FUNCTION,
        GOROUTINE_SYSTEM,
        GOROUTINE_STATE,
        GOROUTINE_WAIT_REASON,
        OVERFLOW
    ],
    "Variance of go.goroutine.wall.time with the same attributes. The standard error of the time between two points is the square root of this between them.",
    "memory: runtime.allgs"
);
def!(
    GOROUTINE_WALL_LOOKS,
    "go.goroutine.wall.looks",
    "{look}",
    Counter,
    &[LOOK_LATE],
    "Looks at the goroutines that go.goroutine.wall.time comes from: 20 a second, fewer where the agent's own CPU limit allows no more.",
    "memory: runtime.allgs"
);

pub static DEFS: Defs = Defs {
    metrics: &[&GOROUTINE_WALL_TIME, &GOROUTINE_WALL_VARIANCE, &GOROUTINE_WALL_LOOKS],
    spans: &[],
    attributes: &[AttributeDef {
        key: LOOK_LATE,
        kind: "bool",
        description: "Whether the look was made without real-time priority (refused without the capability SYS_NICE), or took longer than it lasts. On a busy machine such looks show up to a third too little of the time that goroutines run.",
    }],
};
