//! Run-queue delay of threads.

use crate::telemetry::{Defs, Instrument::ExponentialHistogram, MetricDef};

pub static RUN_QUEUE_DURATION: MetricDef = MetricDef {
    name: "whywait.thread.run_queue.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Run-queue delay of the service's threads: wakeup or preemption to running.",
    source: "tp_btf: sched_wakeup, sched_wakeup_new, sched_switch",
    attributes: &[],
};

pub static DEFS: Defs = Defs {
    metrics: &[&RUN_QUEUE_DURATION],
    spans: &[],
    attributes: &[],
};
