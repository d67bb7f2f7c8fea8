//! The kernel's account of threads.

use crate::telemetry::{Defs, Instrument::Counter, MetricDef};

def!(
    RUN_QUEUE_TIME,
    "whywait.thread.run_queue.time",
    "s",
    Counter,
    &[],
    "Time for which threads of the service waited for a core, since whywait watches it: always, at any load. Throttled time is in it. What a thread waited in its last second before it ended is not.",
    "/proc/PID/task/*/schedstat, run_delay"
);
def!(
    TIMESLICES,
    "whywait.thread.timeslices",
    "{timeslice}",
    Counter,
    &[],
    "How often threads of the service got a core.",
    "/proc/PID/task/*/schedstat, pcount"
);

pub static DEFS: Defs = Defs {
    metrics: &[&RUN_QUEUE_TIME, &TIMESLICES],
    spans: &[],
    attributes: &[],
};
