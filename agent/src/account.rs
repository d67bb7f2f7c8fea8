//! What the agent says of itself and of its own limits: losses, deliveries, and how much of each signal there is.

use agent_common::loss::Loss;

use crate::{
    aggregate::store::Reading,
    attach::plan::{Coverage, SignalState},
    export::{Cause, ExportStats},
    model::{Attribute, Metric, MonoNs, Point, PointData},
    target::Target,
    telemetry::{MetricDef, agent as own},
};

/// How much of each signal there is, with the reason where it is not all.
pub fn state_metric(target: &Target, reading: &Reading) -> Metric {
    let point = |state: &SignalState| {
        let (coverage, cause) = match &state.coverage {
            Coverage::Full => ("full", None),
            Coverage::Partial(cause) => ("partial", Some(cause.clone())),
            Coverage::Off(cause) => ("off", Some(cause.clone())),
        };
        let mut attributes = vec![
            Attribute::new(own::SIGNAL, state.signal),
            Attribute::new(own::COVERAGE, coverage),
        ];
        attributes.extend(cause.map(|cause| Attribute::new(own::CAUSE, cause)));
        target.gauge(1, reading.time, attributes)
    };
    Metric {
        def: &own::SIGNAL_STATE,
        points: target.states.iter().map(point).collect(),
    }
}

/// What the agent says of itself.
pub fn own_metrics(
    reading: &Reading,
    received: u64,
    rejected: u64,
    export: &ExportStats,
    start: MonoNs,
) -> Vec<Metric> {
    let sum = |value: u64, attributes: Vec<Attribute>| Point {
        attributes,
        start,
        time: reading.time,
        data: PointData::Sum(value as i64),
        exemplars: Vec::new(),
    };
    let one = |def: &'static MetricDef, value: u64| Metric {
        def,
        points: vec![sum(value, Vec::new())],
    };
    let cause = |name: &'static str| vec![Attribute::new(own::CAUSE, name)];
    let mut dropped: Vec<Point> = Loss::ALL
        .iter()
        .map(|(loss, name)| sum(reading.loss[*loss as usize], cause(name)))
        .collect();
    dropped.push(sum(rejected, cause("undecodable")));
    let given_up = Cause::ALL
        .iter()
        .map(|(why, name)| sum(export.dropped_by(*why), cause(name)))
        .collect();
    vec![
        one(&own::EVENTS_RECEIVED, received),
        Metric {
            def: &own::EVENTS_DROPPED,
            points: dropped,
        },
        one(&own::EXPORT_SENT, export.total_sent()),
        Metric {
            def: &own::EXPORT_DROPPED,
            points: given_up,
        },
    ]
}
