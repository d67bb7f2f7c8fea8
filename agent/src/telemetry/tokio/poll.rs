//! Polls of tasks.

use crate::telemetry::{
    Defs,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, OVERFLOW, SpanDef,
    thread::{THREAD_ID, THREAD_NAME},
    tokio::{TOKIO_TASK_FUTURE, TOKIO_TASK_ID},
};

pub static POLL_DURATION: MetricDef = MetricDef {
    name: "tokio.task.poll.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Duration of polls of tasks, by future.",
    source: "uprobes: State::transition_to_running to transition_to_idle or transition_to_complete",
    attributes: &[TOKIO_TASK_FUTURE],
};
pub static BLOCKING_DURATION: MetricDef = MetricDef {
    name: "tokio.blocking.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Duration of closures on the blocking pool, by closure.",
    source: "uprobes: as tokio.task.poll.duration",
    attributes: &[TOKIO_TASK_FUTURE],
};
pub static BUSY_DURATION: MetricDef = MetricDef {
    name: "tokio.worker.busy.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Time of a worker from its first poll after a park to its next park. Up to 64 threads have a series each, by thread id. All others share one, for example if a runtime keeps moving its workers to new threads.",
    source: "uprobes: State::transition_to_running, Context::park_internal",
    attributes: &[THREAD_ID, OVERFLOW],
};
pub static POLL_UNMATCHED: MetricDef = MetricDef {
    name: "tokio.task.poll.unmatched",
    unit: "{poll}",
    instrument: Counter,
    description: "Ends of polls without a known begin: the poll began before the probes were attached, or another task was polled inside it on the same thread.",
    source: "uprobes: as tokio.task.poll.duration",
    attributes: &[],
};
pub static POLL_UNENDED: MetricDef = MetricDef {
    name: "tokio.task.poll.unended",
    unit: "{poll}",
    instrument: Counter,
    description: "Polls of futures for which some ends are not visible, because the compiler inlined them or their probes could not be attached, and polls that were not seen to return. The count is complete, but the durations are not.",
    source: "uprobes: State::transition_to_running",
    attributes: &[TOKIO_TASK_FUTURE],
};

pub static DEFS: Defs = Defs {
    metrics: &[
        &POLL_DURATION,
        &BLOCKING_DURATION,
        &BUSY_DURATION,
        &POLL_UNMATCHED,
        &POLL_UNENDED,
    ],
    spans: &[SpanDef {
        name: "poll {future}",
        description: "A task's poll took longer than --slow-poll, and blocked its worker for that time.",
        source: "uprobes: as tokio.task.poll.duration",
        attributes: &[TOKIO_TASK_ID, TOKIO_TASK_FUTURE, THREAD_ID, THREAD_NAME],
    }],
    attributes: &[],
};
