//! Polls of tasks: how long each took, per future; which were slow, and where the thread's worker was busy.

use std::collections::BTreeMap;

use agent_common::{histogram::Series, target::WORKER_OTHER, tokio::poll::Poll};

use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signals::{count, distribution, metric, slow_span},
    target::Target,
    telemetry::{
        net::OVERFLOW,
        thread::{THREAD_ID, THREAD_NAME},
        tokio::{
            BLOCKING_DURATION, BUSY_DURATION, POLL_DURATION, POLL_UNENDED, POLL_UNMATCHED, TOKIO_TASK_FUTURE,
            TOKIO_TASK_ID,
        },
    },
};

pub const NAME: &str = "tokio.poll";

/// A slow poll.
pub fn span(poll: &Poll, target: &mut Target) -> Span {
    let thread = poll.thread.split(|byte| *byte == 0).next().unwrap_or_default();
    let attributes = vec![
        Attribute::new(TOKIO_TASK_ID, poll.task_id as i64),
        Attribute::new(TOKIO_TASK_FUTURE, target.future(poll.future).to_owned()),
        Attribute::new(THREAD_ID, i64::from(poll.header.tid)),
        Attribute::new(THREAD_NAME, String::from_utf8_lossy(thread).into_owned()),
    ];
    let name = format!("poll {}", target.future(poll.future));
    let times = (MonoNs(poll.since), MonoNs(poll.header.time));
    slow_span(
        target,
        (Series::TokioPoll, poll.future),
        name,
        SpanKind::Internal,
        times,
        attributes,
    )
}

/// Poll durations per future, blocking-pool closures, and time that workers were busy.
pub fn metrics(target: &Target, reading: &Reading) -> Vec<Metric> {
    let future = |id: u32| vec![Attribute::new(TOKIO_TASK_FUTURE, target.future(id).to_owned())];
    let mut metrics = distribution(&POLL_DURATION, target, Series::TokioPoll, reading, future);
    metrics.extend(distribution(
        &BLOCKING_DURATION,
        target,
        Series::TokioBlocking,
        reading,
        future,
    ));
    metrics.extend(distribution(
        &BUSY_DURATION,
        target,
        Series::TokioBusy,
        reading,
        |worker| {
            vec![match worker {
                WORKER_OTHER => Attribute::new(OVERFLOW, true),
                tid => Attribute::new(THREAD_ID, i64::from(tid)),
            }]
        },
    ));
    metrics.extend(count(&POLL_UNMATCHED, target, Series::TokioUnmatched, reading));
    metrics.extend(unended(target, reading));
    metrics
}

/// Polls of types whose ends are not all seen, per future; types of the same name are one.
fn unended(target: &Target, reading: &Reading) -> Vec<Metric> {
    if target.is_off(NAME) {
        // They begin for another signal.
        return Vec::new();
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, count) in reading.counts(target.slot, Series::TokioUnended) {
        *counts.entry(target.future(id)).or_default() += count;
    }
    let points = counts.into_iter().map(|(future, count)| {
        let attributes = vec![Attribute::new(TOKIO_TASK_FUTURE, future.to_owned())];
        target.sum(count, reading.time, attributes)
    });
    metric(&POLL_UNENDED, points.collect())
}
