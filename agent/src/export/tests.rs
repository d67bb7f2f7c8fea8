//! Delivery against a receiver made of the protocol's own server types.

use std::{borrow::Cow, collections::HashMap};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::metric,
};
use tonic::Code;

use self::receiver::{Answer, Receiver};
use super::*;
use crate::{
    clock,
    model::{Metric, MonoNs, PointData, Resource, Span, SpanKind},
    telemetry::agent::EVENTS_RECEIVED,
};

mod hang;
mod receiver;

fn batch(spans: usize, points: usize) -> Batch {
    let span = |number: usize| {
        let start = MonoNs(1_000_000 + number as u64);
        Span::root(
            "test",
            SpanKind::Internal,
            start,
            MonoNs(start.0 + 500),
            vec![crate::model::Attribute::new("n", number as i64)],
        )
    };
    let point = |value: usize| Point {
        attributes: Vec::new(),
        start: MonoNs(1_000),
        time: clock::now(),
        data: PointData::Sum(value as i64),
        exemplars: Vec::new(),
    };
    let metric = Metric {
        def: &EVENTS_RECEIVED,
        points: (0..points).map(point).collect(),
    };
    Batch {
        resource: Arc::new(Resource {
            attributes: vec![(Cow::Borrowed("service.name"), "test".into())],
        }),
        spans: (0..spans).map(span).collect(),
        metrics: if points > 0 { vec![metric] } else { Vec::new() },
        ..Batch::default()
    }
}

fn config(url: &str, env: &[(&str, &str)]) -> OtlpConfig {
    let env: HashMap<String, String> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    config::from_flag_and_env(Some(url), &env).unwrap().unwrap()
}

/// An exporter whose sinks are workers that try again at once.
fn exporter(otlp: &OtlpConfig) -> Exporter {
    let stats = Arc::new(ExportStats::default());
    let sink = |signals: &'static [Signal], endpoint: &Option<config::Endpoint>| {
        let worker = otlp::Worker::new(signals[0], endpoint.as_ref().unwrap(), stats.clone()).unwrap();
        let (queue, waiting) = queue::queue(2);
        let task = tokio::spawn(worker.hurry().run(waiting));
        Sink { signals, queue, task }
    };
    Exporter {
        sinks: vec![
            sink(&[Signal::Traces], &otlp.traces),
            sink(&[Signal::Metrics], &otlp.metrics),
            sink(&[Signal::Logs], &otlp.logs),
        ],
        run: Anchor::take(),
        fixed: false,
        stats,
        files: Vec::new(),
    }
}

/// Waits until every item has met its end, so that shutting down cuts no retry short.
async fn settled(exporter: Exporter) -> Arc<ExportStats> {
    for _ in 0..2_000 {
        if exporter.stats.waiting() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stats = exporter.shutdown(Duration::from_secs(5)).await;
    assert_eq!(stats.total_produced(), stats.total_sent() + stats.total_dropped());
    stats
}

/// Sends 10 spans and 4 points against the given answers, over both transports: sent, refused, unreachable, retries.
async fn outcome(traces: &[Answer], metrics: &[Answer]) -> [u64; 4] {
    let mut outcomes = Vec::new();
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::default();
        receiver.traces.answers.lock().unwrap().extend(traces);
        receiver.metrics.answers.lock().unwrap().extend(metrics);
        let url = match protocol {
            "grpc" => receiver.serve().await,
            _ => receiver.serve_http().await,
        };
        let exporter = exporter(&config(&url, &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]));
        exporter.send(batch(10, 4));
        let stats = settled(exporter).await;
        assert_eq!(stats.total_produced(), 14);
        outcomes.push([
            stats.total_sent(),
            stats.dropped_by(Cause::Refused),
            stats.dropped_by(Cause::Unreachable),
            stats.total_retries(),
        ]);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    outcomes[0]
}

#[tokio::test]
async fn what_fails_in_passing_is_tried_again() {
    let passing = Err(Code::Unavailable);
    assert_eq!(outcome(&[passing, passing, Ok(0)], &[passing]).await, [14, 0, 0, 3]);
}

#[tokio::test]
async fn what_is_rejected_in_part_is_counted_as_refused_and_not_sent_again() {
    assert_eq!(outcome(&[Ok(3)], &[Ok(1)]).await, [10, 4, 0, 0]);
    // More than there was is no more than all.
    assert_eq!(outcome(&[Ok(99)], &[]).await, [4, 10, 0, 0]);
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    assert_eq!(outcome(&[Err(Code::InvalidArgument)], &[]).await, [4, 10, 0, 0]);
    // Of gRPC's codes only without a word on when to come back.
    assert_eq!(outcome(&[], &[Err(Code::ResourceExhausted)]).await, [10, 4, 0, 0]);
}

#[tokio::test]
async fn an_endpoint_without_metrics_is_not_down() {
    for (traces, sent, down) in [(Ok(0), 20, false), (Err(Code::Unimplemented), 0, true)] {
        let receiver = Receiver::default();
        receiver.traces.answers.lock().unwrap().extend([traces, traces]);
        let none = Err(Code::Unimplemented);
        receiver.metrics.answers.lock().unwrap().extend([none, none]);
        let exporter = exporter(&config(&receiver.serve().await, &[]));
        exporter.send(batch(10, 4));
        exporter.send(batch(10, 4));
        let stats = settled(exporter).await;
        assert_eq!((stats.total_sent(), stats.is_down()), (sent, down));
        let dropped = [Cause::Refused, Cause::NoService].map(|cause| stats.dropped_by(cause));
        assert_eq!(dropped, [20 - sent, 8]);
        let text = if down {
            "28 (refused 20, no_service 8)"
        } else {
            "8 (no_service 8)"
        };
        assert_eq!(stats.dropped_text(), text);
    }
}

#[tokio::test]
async fn tries_end() {
    let all_fail = vec![Err(Code::Unavailable); 8];
    assert_eq!(outcome(&all_fail, &[]).await, [4, 0, 10, 7]);
}

/// A URL where nothing listens.
fn nowhere() -> String {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", closed.local_addr().unwrap())
}

#[tokio::test]
async fn an_endpoint_that_is_down_does_not_hold_up_the_other_signals() {
    let receiver = Receiver::default();
    let own = config::from_flag_and_env(
        None,
        &HashMap::from([
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT".to_owned(), nowhere()),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT".to_owned(), receiver.serve().await),
        ]),
    )
    .unwrap();
    let exporter = Exporter::start(Config { otlp: own, files: None }, &Handle::current()).unwrap();
    for _ in 0..20 {
        exporter.send(batch(10, 4));
    }
    for _ in 0..500 {
        if exporter.stats.total_sent() == 80 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // While the first batch of spans is still being tried.
    assert_eq!((exporter.stats.total_sent(), exporter.stats.waiting()), (80, 200));
    assert!(exporter.stats.is_down());
    let stats = exporter.shutdown(Duration::ZERO).await;
    assert_eq!((stats.total_dropped(), stats.waiting()), (200, 0));
}

#[tokio::test]
async fn no_request_is_larger_than_receivers_take() {
    let long = "x".repeat(20_000);
    let mut large = batch(1000, 3000);
    for span in &mut large.spans {
        span.attributes.push(crate::model::Attribute::new("long", long.clone()));
    }
    for point in &mut large.metrics[0].points {
        point
            .attributes
            .push(crate::model::Attribute::new("long", long.clone()));
    }
    let receiver = Receiver::default();
    let exporter = exporter(&config(&receiver.serve().await, &[]));
    exporter.send(large);
    // The receiver refuses 4 MiB and more, as tonic's servers do by default.
    assert_eq!(settled(exporter).await.total_sent(), 4000);
    let points: usize = receiver
        .metrics
        .taken
        .lock()
        .unwrap()
        .iter()
        .flat_map(|request| &request.resource_metrics[0].scope_metrics[0].metrics)
        .map(|metric| match &metric.data {
            Some(metric::Data::Sum(sum)) if metric.name == EVENTS_RECEIVED.name => sum.data_points.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(points, 3000);
}

#[tokio::test]
async fn nothing_waits_for_an_endpoint_that_is_not_there() {
    let exporter = Exporter::start(
        Config {
            otlp: Some(config(&nowhere(), &[])),
            files: None,
        },
        &Handle::current(),
    )
    .unwrap();
    // As many targets with as many spans as there may be in four minutes: bytes are counted, not batches.
    let (spans, most) = (1000, ((queue::ROOM - queue::EVENTS) << 10) / 2);
    let bytes = batch(spans, 0).bytes();
    let fits = most / (bytes / 1024 + 1) / 1024;
    assert!((10..100).contains(&fits), "{bytes} bytes a batch");
    for _ in 0..256 {
        exporter.send(batch(spans, 0));
    }
    let full = exporter.stats.dropped_by(Cause::QueueFull);
    assert_eq!(full, (256 - fits) as u64 * spans as u64);
    let stats = exporter.shutdown(Duration::from_millis(200)).await;
    assert_eq!((stats.total_produced(), stats.total_sent()), (256 * spans as u64, 0));
    assert_eq!(stats.total_dropped(), stats.total_produced());
    assert!(stats.dropped_by(Cause::Closed) + stats.dropped_by(Cause::Unreachable) > 0);
}

/// A batch that is larger than the queue goes alone, and its room is free again for the next.
#[tokio::test]
async fn batches_larger_than_the_queue_are_sent() {
    let receiver = Receiver::default();
    let exporter = exporter(&config(&receiver.serve().await, &[]));
    let spans = (queue::ROOM << 10) / (batch(1, 0).bytes() / 2);
    for _ in 0..2 {
        exporter.send_all(batch(spans, 0)).await;
    }
    assert_eq!(settled(exporter).await.total_sent(), 2 * spans as u64);
}

#[tokio::test]
async fn compression_and_headers_of_the_environment_are_sent() {
    for (protocol, encoding) in [("grpc", "grpc-encoding"), ("http/protobuf", "content-encoding")] {
        let receiver = Receiver::default();
        let env = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20team"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=red"),
        ];
        let url = match protocol {
            "grpc" => receiver.serve().await,
            _ => receiver.serve_http().await,
        };
        let exporter = exporter(&config(&url, &env));
        exporter.send(batch(10, 4));
        assert_eq!(settled(exporter).await.total_sent(), 14);
        assert_eq!(receiver.traces.header(encoding), ["gzip"]);
        assert_eq!(receiver.traces.header("x-tenant"), ["blue team"]);
        assert_eq!(receiver.metrics.header("x-tenant"), ["red"]);
    }
}

#[tokio::test]
async fn every_sink_says_the_same_and_a_series_begin_does_not_move() {
    let receiver = Receiver::default();
    let directory = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(
        Config {
            otlp: Some(config(&receiver.serve().await, &[])),
            files: Some(FilesConfig {
                directory: directory.path().to_owned(),
                rotate: 1 << 30,
            }),
        },
        &Handle::current(),
    )
    .unwrap();
    for _ in 0..5 {
        exporter.send(batch(700, 3));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let stats = settled(exporter).await;
    assert_eq!((stats.total_sent(), stats.total_dropped()), (2 * 5 * 703, 0));

    let lines = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(directory.path().join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let traces: Vec<ExportTraceServiceRequest> = lines("traces.jsonl")
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let metrics: Vec<ExportMetricsServiceRequest> = lines("metrics.jsonl")
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(traces.len(), 10, "700 spans go in two requests");
    assert_eq!(*receiver.traces.taken.lock().unwrap(), traces);
    assert_eq!(*receiver.metrics.taken.lock().unwrap(), metrics);
    let begins: std::collections::HashSet<String> = lines("metrics.jsonl")
        .iter()
        .flat_map(|line| {
            line.split("\"startTimeUnixNano\":\"")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(begins.len(), 1, "{begins:?}");
}

#[tokio::test]
async fn events_leave_as_log_records() {
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::default();
        receiver.logs.answers.lock().unwrap().push_back(Err(Code::Unavailable));
        let url = match protocol {
            "grpc" => receiver.serve().await,
            _ => receiver.serve_http().await,
        };
        let exporter = exporter(&config(&url, &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]));
        let event = crate::model::Event {
            name: "test.begin",
            time: clock::now(),
            body: "it begins".to_owned(),
            is_warning: true,
            attributes: vec![crate::model::Attribute::new("share", 0.5)],
        };
        exporter.send(Batch {
            events: vec![event],
            ..batch(0, 0)
        });
        let stats = settled(exporter).await;
        assert_eq!((stats.total_sent(), stats.total_retries()), (1, 1), "{protocol}");
        let taken = receiver.logs.taken.lock().unwrap();
        let record = &taken[0].resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(
            (record.event_name.as_str(), record.severity_text.as_str()),
            ("test.begin", "WARN")
        );
        assert!(record.time_unix_nano > 0 && record.attributes[0].key == "share");
    }
}
