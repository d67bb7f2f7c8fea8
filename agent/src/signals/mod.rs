//! What each signal means: its attach points, its events as spans, its histograms as metrics. One signal a file, under the
//! same path in `agent-common` and `agent-ebpf`; this registry is the only list of them.

pub mod go;
pub mod net;
pub mod process;
pub mod thread;
pub mod tokio;

use agent_common::histogram::Series;

use crate::{
    aggregate::{
        histogram::{Exponential, SCALE},
        store::Reading,
    },
    attach::kernel::Hook,
    intake::Event,
    model::{Attribute, Metric, MonoNs, Point, PointData, Span, SpanKind},
    origins,
    target::Target,
    telemetry::MetricDef,
};

/// Signals of plane 1, with the alternatives they can be had by.
pub static KERNEL_HOOKS: [Hook; 5] = [
    process::exec::HOOK,
    net::connect::HOOK,
    net::request::HOOK,
    thread::run_queue::HOOK,
    thread::syscall::HOOK,
];

/// Names of the signals that `--without` can leave out.
pub const NAMES: [&str; 14] = [
    go::runtime::NAME,
    go::goroutines::NAME,
    go::gc::NAME,
    go::stw::NAME,
    go::assist::NAME,
    go::sched::NAME,
    go::handoff::NAME,
    tokio::poll::NAME,
    tokio::wake::NAME,
    net::connect::NAME,
    net::request::NAME,
    thread::run_queue::NAME,
    thread::syscall::NAME,
    process::quota::NAME,
];

/// Of them, those that are left out unless `--with` adds them.
pub const OPTIONAL: [&str; 1] = [thread::syscall::NAME];

/// Signals whose probes are hit once a GC cycle or a stop of the world: they are in place outside windows too.
pub const ALWAYS: [&str; 2] = [go::gc::NAME, go::stw::NAME];

/// Adds the spans that an event of `target` becomes.
pub fn spans(event: &Event, target: &mut Target, spans: &mut Vec<Span>) {
    process::quota::glance(target, throttled(event));
    match event {
        // A new process is no span: the pipeline looks at it.
        Event::Exec(_) => {}
        Event::GcCycle(cycle) => spans.extend(go::gc::spans(cycle, target)),
        // Waits for its cycle.
        Event::GoAssists(assists) => target.assists = Some(*assists),
        Event::GoStop(stop) => spans.extend(go::stw::spans(stop, target)),
        Event::Syscall(call) => spans.push(thread::syscall::span(call, target)),
        Event::GoWait(wait) => spans.extend(go::sched::spans(wait, target)),
        Event::TokioPoll(poll) => spans.push(tokio::poll::span(poll, target)),
        Event::Connect(connect) => spans.push(net::connect::span(connect, target)),
        Event::Request(request) => spans.push(net::request::span(request, target)),
    }
}

/// Of an event's time, what threads were throttled, ns.
fn throttled(event: &Event) -> u64 {
    match event {
        Event::GoWait(wait) => wait.throttled,
        Event::GoStop(stop) => stop.late_off.throttled + stop.asker_off.throttled,
        _ => 0,
    }
}

/// Whether an event is told with a GC cycle, which comes later.
pub fn is_part(event: &Event) -> bool {
    matches!(event, Event::GoAssists(_)) || go::stw::is_part(event)
}

/// Takes note of a reading before its metrics are made.
pub fn note(target: &mut Target, reading: &Reading) {
    process::quota::look(target);
    origins::note(target, reading);
}

/// Everything there is to say of `target` at this reading.
pub fn metrics(target: &Target, reading: &Reading) -> Vec<Metric> {
    [
        go::runtime::metrics(target),
        go::goroutines::metrics(target),
        go::stw::metrics(target, reading),
        go::assist::metrics(target, reading),
        go::sched::metrics(target, reading),
        go::handoff::metrics(target, reading),
        tokio::poll::metrics(target, reading),
        tokio::wake::metrics(target, reading),
        net::connect::metrics(target, reading),
        net::request::metrics(target, reading),
        thread::run_queue::metrics(target, reading),
        thread::syscall::metrics(target, reading),
        process::quota::metrics(target),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A kernel histogram as a metric, a point for each part it is split by.
fn distribution(
    def: &'static MetricDef,
    target: &Target,
    series: Series,
    reading: &Reading,
    attributes: impl Fn(u32) -> Vec<Attribute>,
) -> Vec<Metric> {
    distribution_with(def, target, series, reading, attributes, |id| id)
}

/// A [`distribution`] whose exemplars are kept under another id than its parts have.
fn distribution_with(
    def: &'static MetricDef,
    target: &Target,
    series: Series,
    reading: &Reading,
    attributes: impl Fn(u32) -> Vec<Attribute>,
    exemplars_of: impl Fn(u32) -> u32,
) -> Vec<Metric> {
    let mut parts: Vec<_> = reading.split(target.slot, series).collect();
    parts.sort_by_key(|(id, _)| *id);
    let points: Vec<Point> = parts
        .into_iter()
        .map(|(id, histogram)| {
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
                attributes: attributes(id),
                start: target.since,
                time: reading.time,
                data,
                exemplars: target.exemplars(series, exemplars_of(id)),
            }
        })
        .collect();
    metric(def, points)
}

/// A kernel counter as a metric of one point; nothing when it never counted.
fn count(def: &'static MetricDef, target: &Target, series: Series, reading: &Reading) -> Vec<Metric> {
    let value = reading.counter(target.slot, series);
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
fn slow_span(
    target: &mut Target,
    (series, id): (Series, u32),
    name: String,
    kind: SpanKind,
    (start, end): (MonoNs, MonoNs),
    attributes: Vec<Attribute>,
) -> Span {
    let span = Span::root(name, kind, start, end, attributes);
    target.remember(series, id, &span);
    span
}
