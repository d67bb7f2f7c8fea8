//! Wakes of tasks.

use crate::telemetry::{Defs, Instrument::ExponentialHistogram, MetricDef};

pub static WAKE_TO_POLL_DURATION: MetricDef = MetricDef {
    name: "tokio.task.wake_to_poll.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Time from a task's wake, spawn or yield to its poll.",
    source: "uprobes: Schedule::schedule, yield_now, OwnedTasks::bind_inner to State::transition_to_running",
    attributes: &[],
};

pub static DEFS: Defs = Defs {
    metrics: &[&WAKE_TO_POLL_DURATION],
    spans: &[],
    attributes: &[],
};
