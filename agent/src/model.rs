//! What leaves: spans, metrics and events with their resource, in the agent's own clock. The export stage turns them into OTLP.

use std::{borrow::Cow, sync::Arc};

use crate::telemetry::MetricDef;

/// CLOCK_MONOTONIC, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonoNs(pub u64);

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Str(Cow<'static, str>),
    I64(i64),
    F64(f64),
    Bool(bool),
    List(Vec<String>),
}

/// An attribute; keys stand in the telemetry table.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub key: &'static str,
    pub value: Value,
}

impl Attribute {
    /// An attribute of any of the value types.
    pub fn new(key: &'static str, value: impl Into<Value>) -> Self {
        Self {
            key,
            value: value.into(),
        }
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Str(Cow::Borrowed(value))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(Cow::Owned(value))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::I64(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::F64(value)
    }
}

impl From<Vec<String>> for Value {
    fn from(value: Vec<String>) -> Self {
        Self::List(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// OTel's span kinds, as far as they occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Internal,
    Server,
    Client,
}

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    pub start: MonoNs,
    pub end: MonoNs,
    pub attributes: Vec<Attribute>,
    /// Spans of other traces that led to this one.
    pub links: Vec<Link>,
}

/// A span that another one names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl Span {
    /// A span that begins a trace of its own.
    pub fn root(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        start: MonoNs,
        end: MonoNs,
        attributes: Vec<Attribute>,
    ) -> Self {
        let (trace_id, span_id) = (id(), id());
        Self {
            trace_id,
            span_id,
            parent: None,
            name: name.into(),
            kind,
            start,
            end,
            attributes,
            links: Vec::new(),
        }
    }

    /// What another span names this one by.
    pub fn link(&self) -> Link {
        Link {
            trace_id: self.trace_id,
            span_id: self.span_id,
        }
    }

    /// A part of this span.
    pub fn child(
        &self,
        name: impl Into<Cow<'static, str>>,
        start: MonoNs,
        end: MonoNs,
        attributes: Vec<Attribute>,
    ) -> Self {
        let (trace_id, parent, kind) = (self.trace_id, Some(self.span_id), SpanKind::Internal);
        Self {
            trace_id,
            span_id: id(),
            parent,
            name: name.into(),
            kind,
            start,
            end,
            attributes,
            links: Vec::new(),
        }
    }
}

/// Random bytes that are not all zero, as the W3C trace context wants ids.
fn id<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    while bytes == [0; N] {
        fastrand::fill(&mut bytes);
    }
    bytes
}

/// What a metric's point holds.
#[derive(Clone, Debug, PartialEq)]
pub enum PointData {
    /// Cumulative and monotonic, since the point's start.
    Sum(i64),
    /// The same of times in ns, which leave as seconds.
    Time(u64),
    /// The same of what comes in parts.
    RealSum(f64),
    Gauge(i64),
    /// A gauge of what comes in parts.
    Real(f64),
    /// Explicit bounds; `counts` has one more.
    Histogram {
        bounds: Arc<[f64]>,
        counts: Vec<u64>,
        sum: Option<f64>,
        count: u64,
    },
    /// OTLP's exponential histogram, positive buckets only.
    ExpHistogram {
        scale: i32,
        zero_count: u64,
        offset: i32,
        counts: Vec<u64>,
        sum: Option<f64>,
        count: u64,
    },
}

/// A value that was recorded, with the span it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub time: MonoNs,
    pub value: f64,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

/// A point of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub attributes: Vec<Attribute>,
    pub start: MonoNs,
    pub time: MonoNs,
    pub data: PointData,
    pub exemplars: Vec<Exemplar>,
}

/// A metric with its points.
#[derive(Clone, Debug)]
pub struct Metric {
    pub def: &'static MetricDef,
    pub points: Vec<Point>,
}

/// An event: an OTLP log record that has a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: &'static str,
    pub time: MonoNs,
    pub body: String,
    /// Its severity is WARN, not INFO.
    pub is_warning: bool,
    pub attributes: Vec<Attribute>,
}

/// Who all this is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    pub attributes: Vec<(Cow<'static, str>, Value)>,
}

impl Resource {
    /// A string attribute's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(name, _)| name == key)
            .and_then(|(_, value)| match value {
                Value::Str(text) => Some(text.as_ref()),
                _ => None,
            })
    }
}

/// Spans, metrics and events of one resource.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub resource: Arc<Resource>,
    pub spans: Vec<Span>,
    pub metrics: Vec<Metric>,
    pub events: Vec<Event>,
}

impl Batch {
    /// Bytes of memory that it holds, but for the resource, which its target holds too.
    pub fn bytes(&self) -> usize {
        let spans: usize = self.spans.iter().map(Span::bytes).sum();
        let points = self.metrics.iter().flat_map(|metric| &metric.points);
        let events: usize = self.events.iter().map(Event::bytes).sum();
        spans + points.map(Point::bytes).sum::<usize>() + events
    }
}

impl Span {
    fn bytes(&self) -> usize {
        size_of::<Self>() + attributes(&self.attributes) + size_of::<Link>() * self.links.len() + self.name.len()
    }
}

impl Event {
    fn bytes(&self) -> usize {
        size_of::<Self>() + attributes(&self.attributes) + self.body.len()
    }
}

impl Point {
    fn bytes(&self) -> usize {
        let counts = match &self.data {
            PointData::Histogram { counts, .. } | PointData::ExpHistogram { counts, .. } => counts.len(),
            _ => 0,
        };
        let exemplars = size_of::<Exemplar>() * self.exemplars.len();
        size_of::<Self>() + attributes(&self.attributes) + size_of::<u64>() * counts + exemplars
    }
}

fn attributes(attributes: &[Attribute]) -> usize {
    let held = attributes.iter().map(|attribute| match &attribute.value {
        Value::Str(text) => text.len(),
        Value::List(texts) => texts.iter().map(|text| size_of::<String>() + text.len()).sum(),
        Value::I64(_) | Value::F64(_) | Value::Bool(_) => 0,
    });
    size_of_val(attributes) + held.sum::<usize>()
}
