//! Names, units and descriptions of everything that leaves: metrics, spans, attributes. Each signal's stand at the path of the signal in
//! `signals`, and its row in `SIGNALS` has them as [`Defs`]. A [`Table`] has all; docs/telemetry.md is made from it and checked against it.

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
pub mod findings;
pub mod go;
pub mod net;
pub mod process;
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

/// A log record that is an event.
#[derive(Debug, PartialEq, Eq)]
pub struct EventDef {
    pub name: &'static str,
    pub description: &'static str,
    pub source: &'static str,
    pub attributes: &'static [&'static str],
}

/// An attribute of a metric, span or event.
#[derive(Debug, PartialEq, Eq)]
pub struct AttributeDef {
    pub key: &'static str,
    pub kind: &'static str,
    pub description: &'static str,
}

/// All that one signal exports.
#[derive(Debug)]
pub struct Defs {
    pub metrics: &'static [&'static MetricDef],
    pub spans: &'static [SpanDef],
    /// Attributes that no other signal has; others stand in the `mod.rs` of their folder.
    pub attributes: &'static [AttributeDef],
}

pub const OVERFLOW: &str = "otel.metric.overflow";

/// Attributes of several folders.
static ATTRIBUTES: &[AttributeDef] = &[AttributeDef {
    key: OVERFLOW,
    kind: "bool",
    description: "Values of peers beyond the limit of 4096.",
}];

/// Attributes that several signals have.
static SHARED: [&[AttributeDef]; 5] = [
    go::ATTRIBUTES,
    tokio::ATTRIBUTES,
    net::ATTRIBUTES,
    thread::ATTRIBUTES,
    ATTRIBUTES,
];

/// All that the agent exports.
pub struct Table {
    pub metrics: Vec<&'static MetricDef>,
    pub spans: Vec<&'static SpanDef>,
    pub events: Vec<&'static EventDef>,
    pub attributes: Vec<&'static AttributeDef>,
}

impl Table {
    /// What `signals` export, then what the agent says of itself.
    pub fn of(signals: impl Iterator<Item = &'static Defs>) -> Self {
        let all: Vec<&Defs> = signals.chain([&findings::DEFS, &agent::DEFS]).collect();
        let attributes = SHARED.into_iter().chain(all.iter().map(|defs| defs.attributes));
        Self {
            metrics: all.iter().flat_map(|defs| defs.metrics).copied().collect(),
            spans: all.iter().flat_map(|defs| defs.spans).collect(),
            events: findings::EVENTS.iter().collect(),
            attributes: attributes.flatten().collect(),
        }
    }
}
