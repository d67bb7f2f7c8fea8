//! The table of everything that leaves: metrics, spans, attributes. docs/telemetry.md is made from it and checked against it.

/// Declares a metric; its source comes last.
macro_rules! def {
    ($const:ident, $name:literal, $unit:literal, $instrument:ident, $attributes:expr, $description:literal, $source:literal) => {
        pub static $const: MetricDef = MetricDef {
            name: $name,
            unit: $unit,
            instrument: $instrument,
            description: $description,
            source: $source,
            attributes: $attributes,
        };
    };
}

pub mod agent;
pub mod docs;
pub mod gc;
pub mod go;
pub mod goroutine;
pub mod net;
pub mod processor;
pub mod quota;
pub mod stw;
pub mod syscall;
pub mod thread;
pub mod tokio;

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// Cumulative, monotonic.
    Counter,
    Gauge,
    /// Cumulative, goes up and down.
    UpDownCounter,
    /// Cumulative, with the runtime's own explicit bounds.
    Histogram,
    /// Cumulative, exponential buckets of scale 4.
    ExponentialHistogram,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct MetricDef {
    pub name: &'static str,
    pub unit: &'static str,
    pub instrument: Instrument,
    pub description: &'static str,
    /// Where the figure comes from.
    pub source: &'static str,
    pub attributes: &'static [&'static str],
}

/// A span.
#[derive(Debug, PartialEq, Eq)]
pub struct SpanDef {
    /// Its name, with what varies in braces.
    pub name: &'static str,
    pub description: &'static str,
    pub source: &'static str,
    pub attributes: &'static [&'static str],
}

/// An attribute of a metric or span.
#[derive(Debug, PartialEq, Eq)]
pub struct AttributeDef {
    pub key: &'static str,
    pub kind: &'static str,
    pub description: &'static str,
}

/// Every metric.
pub fn metrics() -> impl Iterator<Item = &'static MetricDef> {
    [
        go::METRICS,
        gc::METRICS,
        goroutine::METRICS,
        stw::METRICS,
        processor::METRICS,
        tokio::METRICS,
        net::METRICS,
        thread::METRICS,
        syscall::METRICS,
        quota::METRICS,
        agent::METRICS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Every span.
pub fn spans() -> impl Iterator<Item = &'static SpanDef> {
    [
        go::SPANS,
        stw::SPANS,
        goroutine::SPANS,
        tokio::SPANS,
        net::SPANS,
        syscall::SPANS,
    ]
    .into_iter()
    .flatten()
}

/// Every attribute.
pub fn attributes() -> impl Iterator<Item = &'static AttributeDef> {
    [
        go::ATTRIBUTES,
        gc::ATTRIBUTES,
        goroutine::ATTRIBUTES,
        stw::ATTRIBUTES,
        processor::ATTRIBUTES,
        tokio::ATTRIBUTES,
        net::ATTRIBUTES,
        thread::ATTRIBUTES,
        syscall::ATTRIBUTES,
        quota::ATTRIBUTES,
        agent::ATTRIBUTES,
    ]
    .into_iter()
    .flatten()
}
