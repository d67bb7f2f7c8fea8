//! tokio.

use super::{
    AttributeDef,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, SpanDef,
    net::OVERFLOW,
    thread::{THREAD_ID, THREAD_NAME},
};

pub const TOKIO_TASK_ID: &str = "tokio.task.id";
pub const TOKIO_TASK_FUTURE: &str = "tokio.task.future";

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
    description: "Polls of futures for which some ends are not visible, because the compiler inlined them or their probes could not be attached. The count is complete, but the durations are not.",
    source: "uprobes: State::transition_to_running",
    attributes: &[TOKIO_TASK_FUTURE],
};
pub static WAKE_TO_POLL_DURATION: MetricDef = MetricDef {
    name: "tokio.task.wake_to_poll.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Time from a task's wake, spawn or yield to its poll.",
    source: "uprobes: Schedule::schedule, yield_now, OwnedTasks::bind_inner to State::transition_to_running",
    attributes: &[],
};

pub static METRICS: &[&MetricDef] = &[
    &POLL_DURATION,
    &BLOCKING_DURATION,
    &BUSY_DURATION,
    &POLL_UNMATCHED,
    &POLL_UNENDED,
    &WAKE_TO_POLL_DURATION,
];

pub static SPANS: &[SpanDef] = &[SpanDef {
    name: "poll {future}",
    description: "A task's poll took longer than --slow-poll, and blocked its worker for that time.",
    source: "uprobes: as tokio.task.poll.duration",
    attributes: &[TOKIO_TASK_ID, TOKIO_TASK_FUTURE, THREAD_ID, THREAD_NAME],
}];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: TOKIO_TASK_ID,
        kind: "int",
        description: "tokio::task::Id.",
    },
    AttributeDef {
        key: TOKIO_TASK_FUTURE,
        kind: "string",
        description: "Type name of the task's future or closure. Names joined by ` | ` share the code of one vtable. `unknown` if no symbol has the name.",
    },
];
