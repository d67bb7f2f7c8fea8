//! How long the target's threads wait for a core.

use agent_common::{histogram::Series, hits::HitKind};

use crate::{
    aggregate::store::Reading,
    model::Metric,
    signal::{Alternative, Hook, Point},
    signals::points::distribution,
    signals::summary::Summary,
    signals::{Check, Signal, State},
    target::Target,
    telemetry::thread::run_queue::{DEFS, RUN_QUEUE_DURATION},
};

pub const NAME: &str = "thread.run_queue";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::ThreadWakeup, HitKind::ThreadSwitch],
    series: &[Series::RunQueue],
    hook: Some(HOOK),
    summary: Some(|target, _, reading| {
        Summary::default().whole(1, "thread in run queue", reading.whole(target.id, Series::RunQueue))
    }),
    check: Some(Check {
        what: "delays",
        count: |target, _, reading| reading.whole(target.id, Series::RunQueue).count(),
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

const HOOK: Hook = Hook {
    signal: NAME,
    alternatives: &[Alternative {
        name: "tp_btf/sched_switch",
        programs: &[
            ("thread_wakeup", Point::TpBtf("sched_wakeup")),
            ("thread_wakeup_new", Point::TpBtf("sched_wakeup_new")),
            ("thread_switch", Point::TpBtf("sched_switch")),
        ],
        without_ipv6: None,
    }],
    windowed: true,
    asked: None,
};

/// The run-queue delay of all threads as one histogram.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    distribution(&RUN_QUEUE_DURATION, target, state, Series::RunQueue, reading, |_| {
        Vec::new()
    })
}
