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
    description: "Polls of tasks, per future.",
    source: "uprobes: State::transition_to_running to transition_to_idle or transition_to_complete",
    attributes: &[TOKIO_TASK_FUTURE],
};
pub static BLOCKING_DURATION: MetricDef = MetricDef {
    name: "tokio.blocking.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Closures on the blocking pool, per closure.",
    source: "uprobes: as tokio.task.poll.duration",
    attributes: &[TOKIO_TASK_FUTURE],
};
pub static BUSY_DURATION: MetricDef = MetricDef {
    name: "tokio.worker.busy.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "A worker's stretches from its first poll after a park to its next park. Up to 64 threads are told apart, by their ids; the others, \
                  as of a runtime that moves its workers to new ones for ever, are together.",
    source: "uprobes: State::transition_to_running, Context::park_internal",
    attributes: &[THREAD_ID, OVERFLOW],
};
pub static POLL_UNMATCHED: MetricDef = MetricDef {
    name: "tokio.task.poll.unmatched",
    unit: "{poll}",
    instrument: Counter,
    description: "Ends of polls whose begin was not seen: begun before the probes, or around another task's poll on the same thread.",
    source: "uprobes: as tokio.task.poll.duration",
    attributes: &[],
};
pub static POLL_UNENDED: MetricDef = MetricDef {
    name: "tokio.task.poll.unended",
    unit: "{poll}",
    instrument: Counter,
    description: "Polls of futures whose ends are not all to be seen, since the compiler inlined them or their probes could not be attached: as many there were, whatever is told of how long they took.",
    source: "uprobes: State::transition_to_running",
    attributes: &[TOKIO_TASK_FUTURE],
};
pub static WAKE_TO_POLL_DURATION: MetricDef = MetricDef {
    name: "tokio.task.wake_to_poll.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "From a task's wake, spawn or yield to its poll.",
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
    description: "A task's poll that took over --slow-poll: it held its worker for that long.",
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
        description: "Type name of the task's future or closure; names joined by ` | ` share one vtable's code; `unknown` when no symbol names it.",
    },
];
