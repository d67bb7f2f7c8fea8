//! What the metrics and spans of all signals are made with.

use agent_common::histogram::Series;

use crate::{
    aggregate::{
        Histogram,
        histogram::{Exponential, SCALE},
        store::Reading,
    },
    model::{Attribute, Exemplar, Metric, MonoNs, Point, PointData, Span, SpanKind},
    signals::State,
    target::Target,
    telemetry::MetricDef,
};

/// A kernel histogram as a metric, a point for each part it is split by.
pub fn distribution(
    def: &'static MetricDef,
    target: &Target,
    state: &State,
    series: Series,
    reading: &Reading,
    attributes: impl Fn(u32) -> Vec<Attribute>,
) -> Vec<Metric> {
    distribution_with(def, target, state, series, reading, attributes, |id| id)
}

/// A [`distribution`] whose exemplars are kept under another id than its parts have.
pub fn distribution_with(
    def: &'static MetricDef,
    target: &Target,
    state: &State,
    series: Series,
    reading: &Reading,
    attributes: impl Fn(u32) -> Vec<Attribute>,
    exemplars_of: impl Fn(u32) -> u32,
) -> Vec<Metric> {
    let mut parts: Vec<_> = reading.split(target.id, series).collect();
    parts.sort_by_key(|(id, _)| *id);
    let points: Vec<Point> = parts
        .into_iter()
        .map(|(id, histogram)| {
            let exemplars = state.exemplars(series, exemplars_of(id));
            exponential(histogram, target, reading.time, attributes(id), exemplars)
        })
        .collect();
    metric(def, points)
}

/// A histogram as a point.
pub fn exponential(
    histogram: &Histogram,
    target: &Target,
    time: MonoNs,
    attributes: Vec<Attribute>,
    exemplars: Vec<Exemplar>,
) -> Point {
    let Exponential {
        zero_count,
        offset,
        counts,
    } = histogram.exponential();
    let data = PointData::ExpHistogram {
        scale: SCALE,
        zero_count,
        offset,
        counts,
        sum: Some(histogram.sum() as f64 / 1e9),
        count: histogram.count(),
    };
    Point {
        attributes,
        start: target.since,
        time,
        data,
        exemplars,
    }
}

/// A kernel counter as a metric of one point; nothing when it never counted.
pub fn count(def: &'static MetricDef, target: &Target, series: Series, reading: &Reading) -> Vec<Metric> {
    let value = reading.counter(target.id, series);
    let points = if value == 0 {
        Vec::new()
    } else {
        vec![target.sum(value, reading.time, Vec::new())]
    };
    metric(def, points)
}

/// A metric, unless it has no points.
pub fn metric(def: &'static MetricDef, points: Vec<Point>) -> Vec<Metric> {
    if points.is_empty() {
        Vec::new()
    } else {
        vec![Metric { def, points }]
    }
}

/// A span of its own trace for something over its threshold, which also becomes the exemplar of its histogram.
pub fn slow_span(
    state: &mut State,
    (series, id): (Series, u32),
    name: String,
    kind: SpanKind,
    (start, end): (MonoNs, MonoNs),
    attributes: Vec<Attribute>,
) -> Span {
    let span = Span::root(name, kind, start, end, attributes);
    state.remember(series, id, &span);
    span
}
