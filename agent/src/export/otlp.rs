//! Batches as OTLP requests. Resources and pre-aggregated histograms with their exact bounds go as they are, which the
//! SDK's instruments cannot carry: hence the protocol's own messages (docs/design/export.md).

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        self as proto, AggregationTemporality, NumberDataPoint, ResourceMetrics, ScopeMetrics, exemplar,
        exponential_histogram_data_point::Buckets, metric, number_data_point,
    },
    resource::v1::Resource as ProtoResource,
    trace::v1::{self as trace, ResourceSpans, ScopeSpans},
};

use super::{Outgoing, Times};
use crate::{
    model::{Attribute, Exemplar, Metric, Point, PointData, Resource, Span, SpanKind, Value},
    telemetry::Instrument,
};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// The batch's spans in requests of at most `limit`, with their numbers.
pub(super) fn trace_requests(
    outgoing: &Outgoing,
    limit: usize,
) -> impl Iterator<Item = (ExportTraceServiceRequest, u64)> {
    let Outgoing { batch, times } = outgoing;
    batch.spans.chunks(limit).map(move |spans| {
        let scope_spans = ScopeSpans {
            scope: Some(scope()),
            spans: spans.iter().map(|span| encode_span(span, times)).collect(),
            ..ScopeSpans::default()
        };
        let resource = Some(encode_resource(&batch.resource));
        let resource_spans = ResourceSpans {
            resource,
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        (
            ExportTraceServiceRequest {
                resource_spans: vec![resource_spans],
            },
            spans.len() as u64,
        )
    })
}

/// The batch's metrics in requests of about `limit` points (a metric is not cut), with their numbers of points.
pub(super) fn metric_requests(outgoing: &Outgoing, limit: usize) -> Vec<(ExportMetricsServiceRequest, u64)> {
    let Outgoing { batch, times } = outgoing;
    let mut requests: Vec<(Vec<proto::Metric>, usize)> = Vec::new();
    for metric in &batch.metrics {
        let points = metric.points.len();
        match requests.last_mut() {
            Some((metrics, count)) if *count + points <= limit => {
                metrics.push(encode_metric(metric, times));
                *count += points;
            }
            _ => requests.push((vec![encode_metric(metric, times)], points)),
        }
    }
    let request = |(metrics, points): (Vec<proto::Metric>, usize)| {
        let scope_metrics = ScopeMetrics {
            scope: Some(scope()),
            metrics,
            ..ScopeMetrics::default()
        };
        let resource = Some(encode_resource(&batch.resource));
        let resource_metrics = ResourceMetrics {
            resource,
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        (
            ExportMetricsServiceRequest {
                resource_metrics: vec![resource_metrics],
            },
            points as u64,
        )
    };
    requests.into_iter().map(request).collect()
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "whywait".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn encode_resource(resource: &Resource) -> ProtoResource {
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
        ..trace::Span::default()
    }
}

fn encode_metric(metric: &Metric, times: &Times) -> proto::Metric {
    let points = &metric.points;
    let numbers = || points.iter().filter_map(|point| number(point, times)).collect();
    let data = match points.first().map(|point| &point.data) {
        Some(PointData::Gauge(_)) if metric.def.instrument == Instrument::UpDownCounter => {
            metric::Data::Sum(proto::Sum {
                data_points: numbers(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: false,
            })
        }
        Some(PointData::Gauge(_)) => metric::Data::Gauge(proto::Gauge { data_points: numbers() }),
        Some(PointData::Histogram { .. }) => metric::Data::Histogram(proto::Histogram {
            data_points: points.iter().filter_map(|point| histogram(point, times)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
        Some(PointData::ExpHistogram { .. }) => metric::Data::ExponentialHistogram(proto::ExponentialHistogram {
            data_points: points.iter().filter_map(|point| exponential(point, times)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
        Some(PointData::Sum(_)) | None => metric::Data::Sum(proto::Sum {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
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

fn number(point: &Point, times: &Times) -> Option<NumberDataPoint> {
    let (PointData::Sum(value) | PointData::Gauge(value)) = point.data else {
        return None;
    };
    Some(NumberDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: times.begin(point),
        time_unix_nano: times.now.wall(point.time),
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    })
}

fn histogram(point: &Point, times: &Times) -> Option<proto::HistogramDataPoint> {
    let PointData::Histogram {
        bounds,
        counts,
        sum,
        count,
    } = &point.data
    else {
        return None;
    };
    Some(proto::HistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: times.begin(point),
        time_unix_nano: times.now.wall(point.time),
        count: *count,
        sum: *sum,
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.to_vec(),
        exemplars: exemplars(&point.exemplars, times),
        ..proto::HistogramDataPoint::default()
    })
}

fn exponential(point: &Point, times: &Times) -> Option<proto::ExponentialHistogramDataPoint> {
    let PointData::ExpHistogram {
        scale,
        zero_count,
        offset,
        counts,
        sum,
        count,
    } = &point.data
    else {
        return None;
    };
    Some(proto::ExponentialHistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: times.begin(point),
        time_unix_nano: times.now.wall(point.time),
        count: *count,
        sum: *sum,
        scale: *scale,
        zero_count: *zero_count,
        positive: Some(Buckets {
            offset: *offset,
            bucket_counts: counts.clone(),
        }),
        exemplars: exemplars(&point.exemplars, times),
        ..proto::ExponentialHistogramDataPoint::default()
    })
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
        Value::Bool(truth) => any_value::Value::BoolValue(*truth),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
