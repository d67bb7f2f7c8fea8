//! Threads.

use super::{AttributeDef, Instrument::ExponentialHistogram, MetricDef};

pub const THREAD_ID: &str = "thread.id";
pub const THREAD_NAME: &str = "thread.name";

pub static RUN_QUEUE_DURATION: MetricDef = MetricDef {
    name: "whywait.thread.run_queue.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Run-queue delay of the service's threads: wakeup or preemption to running.",
    source: "tp_btf: sched_wakeup, sched_wakeup_new, sched_switch",
    attributes: &[],
};

pub static METRICS: &[&MetricDef] = &[&RUN_QUEUE_DURATION];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: THREAD_ID,
        kind: "int",
        description: "Kernel tid.",
    },
    AttributeDef {
        key: THREAD_NAME,
        kind: "string",
        description: "The kernel's name of the thread.",
    },
];
