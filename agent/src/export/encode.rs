//! Batches as OTLP requests. Resources and pre-aggregated histograms with their exact bounds go as they are, which the
//! SDK's instruments cannot carry: hence the protocol's own messages (docs/design/export.md).

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::{
        self as proto, AggregationTemporality, NumberDataPoint, ResourceMetrics, ScopeMetrics, exemplar,
        exponential_histogram_data_point::Buckets, metric, number_data_point,
    },
    resource::v1::Resource as ProtoResource,
    trace::v1::{self as trace, ResourceSpans, ScopeSpans},
};
use prost::Message as _;

use super::{Outgoing, Times};
use crate::{
    model::{Attribute, Event, Exemplar, Link, Metric, Point, PointData, Resource, Span, SpanKind, Value},
    telemetry::Instrument,
};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Most spans, most points, and most events, in one request.
const ITEMS: usize = 512;
/// Most bytes of spans or points in one request: receivers take 4 MiB (gRPC's default), resource and names included.
const BYTES: usize = 3 << 20;

/// The batch's spans in requests within the limits, with their numbers.
pub(super) fn trace_requests(outgoing: &Outgoing) -> Vec<(ExportTraceServiceRequest, u64)> {
    let Outgoing { batch, times } = outgoing;
    let mut parts: Parts<trace::Span> = Parts::default();
    for span in &batch.spans {
        let span = encode_span(span, times);
        let bytes = span.encoded_len();
        parts.room(bytes).push(span);
    }
    let request = |spans: Vec<trace::Span>| {
        let items = spans.len() as u64;
        let scope_spans = ScopeSpans {
            scope: Some(scope()),
            spans,
            ..ScopeSpans::default()
        };
        let resource_spans = vec![ResourceSpans {
            resource: Some(encode_resource(&batch.resource)),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }];
        (ExportTraceServiceRequest { resource_spans }, items)
    };
    parts.requests.into_iter().map(request).collect()
}

/// The batch's metrics in requests within the limits, with their numbers of points. A metric with too many points for one
/// request goes in several.
pub(super) fn metric_requests(outgoing: &Outgoing) -> Vec<(ExportMetricsServiceRequest, u64)> {
    let Outgoing { batch, times } = outgoing;
    let mut parts: Parts<(&Metric, Vec<Encoded>)> = Parts::default();
    for metric in &batch.metrics {
        for point in &metric.points {
            let point = encode_point(point, times);
            let request = parts.room(point.bytes());
            match request.last_mut() {
                Some((last, points)) if std::ptr::eq(*last, metric) => points.push(point),
                _ => request.push((metric, vec![point])),
            }
        }
    }
    let request = |metrics: Vec<(&Metric, Vec<Encoded>)>| {
        let items = metrics.iter().map(|(_, points)| points.len() as u64).sum();
        let scope_metrics = ScopeMetrics {
            scope: Some(scope()),
            metrics: metrics
                .into_iter()
                .map(|(metric, points)| encode_metric(metric, points))
                .collect(),
            ..ScopeMetrics::default()
        };
        let resource_metrics = vec![ResourceMetrics {
            resource: Some(encode_resource(&batch.resource)),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }];
        (ExportMetricsServiceRequest { resource_metrics }, items)
    };
    parts.requests.into_iter().map(request).collect()
}

/// The batch's events in requests within the limits, with their numbers.
pub(super) fn log_requests(outgoing: &Outgoing) -> Vec<(ExportLogsServiceRequest, u64)> {
    let Outgoing { batch, times } = outgoing;
    let mut parts: Parts<LogRecord> = Parts::default();
    for event in &batch.events {
        let record = encode_event(event, times);
        let bytes = record.encoded_len();
        parts.room(bytes).push(record);
    }
    let request = |log_records: Vec<LogRecord>| {
        let items = log_records.len() as u64;
        let scope_logs = ScopeLogs {
            scope: Some(scope()),
            log_records,
            ..ScopeLogs::default()
        };
        let resource_logs = vec![ResourceLogs {
            resource: Some(encode_resource(&batch.resource)),
            scope_logs: vec![scope_logs],
            ..ResourceLogs::default()
        }];
        (ExportLogsServiceRequest { resource_logs }, items)
    };
    parts.requests.into_iter().map(request).collect()
}

fn encode_event(event: &Event, times: &Times) -> LogRecord {
    let time = times.now.wall(event.time);
    let (severity, text) = if event.is_warning {
        (SeverityNumber::Warn, "WARN")
    } else {
        (SeverityNumber::Info, "INFO")
    };
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity as i32,
        severity_text: text.to_owned(),
        event_name: event.name.to_owned(),
        body: Some(AnyValue {
            value: Some(any_value::Value::StringValue(event.body.clone())),
        }),
        attributes: attributes(&event.attributes),
        ..LogRecord::default()
    }
}

/// Items of one batch, parted into requests.
struct Parts<T> {
    requests: Vec<Vec<T>>,
    /// Of the last request.
    items: usize,
    bytes: usize,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self {
            requests: Vec::new(),
            items: 0,
            bytes: 0,
        }
    }
}

impl<T> Parts<T> {
    /// The request that one more item of so many bytes goes into.
    fn room(&mut self, bytes: usize) -> &mut Vec<T> {
        if self.requests.is_empty() || self.items == ITEMS || self.bytes + bytes > BYTES {
            self.requests.push(Vec::new());
            (self.items, self.bytes) = (0, 0);
        }
        self.items += 1;
        self.bytes += bytes;
        let last = self.requests.len() - 1;
        &mut self.requests[last]
    }
}

/// A point in the form of its kind.
enum Encoded {
    Number(NumberDataPoint),
    Histogram(proto::HistogramDataPoint),
    Exponential(proto::ExponentialHistogramDataPoint),
}

impl Encoded {
    fn bytes(&self) -> usize {
        match self {
            Self::Number(point) => point.encoded_len(),
            Self::Histogram(point) => point.encoded_len(),
            Self::Exponential(point) => point.encoded_len(),
        }
    }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "whywait".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

pub(super) fn encode_resource(resource: &Resource) -> ProtoResource {
    let attributes = resource
        .attributes
        .iter()
        .map(|(key, value)| key_value(key, value))
        .collect();
    ProtoResource {
        attributes,
        ..ProtoResource::default()
    }
}

fn encode_span(span: &Span, times: &Times) -> trace::Span {
    let kind = match span.kind {
        SpanKind::Internal => trace::span::SpanKind::Internal,
        SpanKind::Server => trace::span::SpanKind::Server,
        SpanKind::Client => trace::span::SpanKind::Client,
    };
    trace::Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        // Sampled.
        flags: 1,
        name: span.name.to_string(),
        kind: kind as i32,
        start_time_unix_nano: times.now.wall(span.start),
        end_time_unix_nano: times.now.wall(span.end),
        attributes: attributes(&span.attributes),
        links: span.links.iter().map(encode_link).collect(),
        ..trace::Span::default()
    }
}

fn encode_link(link: &Link) -> trace::span::Link {
    trace::span::Link {
        trace_id: link.trace_id.to_vec(),
        span_id: link.span_id.to_vec(),
        flags: 1,
        ..trace::span::Link::default()
    }
}

/// The metric with these of its points, which are all of one kind.
fn encode_metric(metric: &Metric, points: Vec<Encoded>) -> proto::Metric {
    let (mut numbers, mut histograms, mut exponentials) = (Vec::new(), Vec::new(), Vec::new());
    for point in points {
        match point {
            Encoded::Number(point) => numbers.push(point),
            Encoded::Histogram(point) => histograms.push(point),
            Encoded::Exponential(point) => exponentials.push(point),
        }
    }
    let data = match metric.points.first().map(|point| &point.data) {
        Some(PointData::Histogram { .. }) => metric::Data::Histogram(proto::Histogram {
            data_points: histograms,
            aggregation_temporality: CUMULATIVE,
        }),
        Some(PointData::ExpHistogram { .. }) => metric::Data::ExponentialHistogram(proto::ExponentialHistogram {
            data_points: exponentials,
            aggregation_temporality: CUMULATIVE,
        }),
        Some(PointData::Gauge(_) | PointData::Real(_)) if metric.def.instrument != Instrument::UpDownCounter => {
            metric::Data::Gauge(proto::Gauge { data_points: numbers })
        }
        Some(
            PointData::Gauge(_) | PointData::Real(_) | PointData::Sum(_) | PointData::Time(_) | PointData::RealSum(_),
        )
        | None => metric::Data::Sum(proto::Sum {
            data_points: numbers,
            aggregation_temporality: CUMULATIVE,
            is_monotonic: metric.def.instrument != Instrument::UpDownCounter,
        }),
    };
    proto::Metric {
        name: metric.def.name.to_owned(),
        description: metric.def.description.to_owned(),
        unit: metric.def.unit.to_owned(),
        data: Some(data),
        ..proto::Metric::default()
    }
}

fn number(data: &PointData) -> Option<number_data_point::Value> {
    match data {
        PointData::Sum(value) | PointData::Gauge(value) => Some(number_data_point::Value::AsInt(*value)),
        PointData::Real(value) | PointData::RealSum(value) => Some(number_data_point::Value::AsDouble(*value)),
        PointData::Time(ns) => Some(number_data_point::Value::AsDouble(*ns as f64 / 1e9)),
        PointData::Histogram { .. } | PointData::ExpHistogram { .. } => None,
    }
}

fn encode_point(point: &Point, times: &Times) -> Encoded {
    let attributes = attributes(&point.attributes);
    let (start_time_unix_nano, time_unix_nano) = (times.begin(point), times.now.wall(point.time));
    let exemplars = exemplars(&point.exemplars, times);
    match &point.data {
        PointData::Sum(_) | PointData::Gauge(_) | PointData::Real(_) | PointData::Time(_) | PointData::RealSum(_) => {
            Encoded::Number(NumberDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                value: number(&point.data),
                ..NumberDataPoint::default()
            })
        }
        PointData::Histogram {
            bounds,
            counts,
            sum,
            count,
        } => Encoded::Histogram(proto::HistogramDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            count: *count,
            sum: *sum,
            bucket_counts: counts.clone(),
            explicit_bounds: bounds.to_vec(),
            exemplars,
            ..proto::HistogramDataPoint::default()
        }),
        PointData::ExpHistogram {
            scale,
            zero_count,
            offset,
            counts,
            sum,
            count,
        } => Encoded::Exponential(proto::ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            count: *count,
            sum: *sum,
            scale: *scale,
            zero_count: *zero_count,
            positive: Some(Buckets {
                offset: *offset,
                bucket_counts: counts.clone(),
            }),
            exemplars,
            ..proto::ExponentialHistogramDataPoint::default()
        }),
    }
}

fn exemplars(exemplars: &[Exemplar], times: &Times) -> Vec<proto::Exemplar> {
    let encode = |exemplar: &Exemplar| proto::Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: times.now.wall(exemplar.time),
        span_id: exemplar.span_id.to_vec(),
        trace_id: exemplar.trace_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
    };
    exemplars.iter().map(encode).collect()
}

fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|attribute| key_value(attribute.key, &attribute.value))
        .collect()
}

fn key_value(key: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Str(text) => any_value::Value::StringValue(text.to_string()),
        Value::I64(number) => any_value::Value::IntValue(*number),
        Value::F64(number) => any_value::Value::DoubleValue(*number),
        Value::Bool(truth) => any_value::Value::BoolValue(*truth),
        Value::List(texts) => any_value::Value::ArrayValue(ArrayValue {
            values: texts
                .iter()
                .map(|text| AnyValue {
                    value: Some(any_value::Value::StringValue(text.clone())),
                })
                .collect(),
        }),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
