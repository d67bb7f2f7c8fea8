//! Delivery against a receiver made of the protocol's own server types.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding::Gzip,
    transport::{Server, server::TcpIncoming},
};

use super::*;
use crate::{
    clock,
    model::{Metric, MonoNs, PointData, Resource, Span, SpanKind},
    telemetry::agent::EVENTS_RECEIVED,
};

/// An answer: items rejected in part, or the request's failure. Without one left everything is taken.
type Answer = Result<i64, Code>;

#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    headers: Arc<Mutex<Vec<tonic::metadata::MetadataMap>>>,
}

impl Receiver {
    fn answer<T>(&self, request: Request<T>, taken: &Mutex<Vec<T>>) -> Result<i64, Status> {
        self.headers.lock().unwrap().push(request.metadata().clone());
        match self.answers.lock().unwrap().pop_front().unwrap_or(Ok(0)) {
            Ok(rejected) => {
                taken.lock().unwrap().push(request.into_inner());
                Ok(rejected)
            }
            Err(code) => Err(Status::new(code, "as the test wants it")),
        }
    }

    /// Serves on a free port until the test's runtime ends.
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(TraceServiceServer::new(self.clone()).accept_compressed(Gzip))
            .add_service(MetricsServiceServer::new(self.clone()).accept_compressed(Gzip))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        url
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let rejected_spans = self.answer(request, &self.traces)?;
        let partial_success = (rejected_spans > 0).then(|| ExportTracePartialSuccess {
            rejected_spans,
            error_message: "in part".to_owned(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let rejected_data_points = self.answer(request, &self.metrics)?;
        let partial_success = (rejected_data_points > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message: "in part".to_owned(),
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

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
    }
}

fn config(url: &str, env: &[(&str, &str)]) -> GrpcConfig {
    let env: HashMap<String, String> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    config::from_flag_and_env(Some(url), &env).unwrap().unwrap()
}

/// An exporter whose only sink is a worker that tries again at once.
fn exporter(grpc: &GrpcConfig) -> Exporter {
    let stats = Arc::new(ExportStats::default());
    let worker = grpc::Worker::new(grpc, stats.clone()).unwrap().hurry();
    let (aggregate_to_export, queue) = mpsc::channel(QUEUE);
    let task = tokio::spawn(worker.run(queue));
    Exporter {
        sinks: vec![Sink {
            aggregate_to_export,
            task,
        }],
        run: Anchor::take(),
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

/// Sends 10 spans and 4 points against the given answers: sent, refused, unreachable, retries.
async fn outcome(answers: &[Answer]) -> [u64; 4] {
    let receiver = Receiver::default();
    receiver.answers.lock().unwrap().extend(answers);
    let exporter = exporter(&config(&receiver.serve().await, &[]));
    exporter.send(batch(10, 4));
    let stats = settled(exporter).await;
    assert_eq!(stats.total_produced(), 14);
    [
        stats.total_sent(),
        stats.dropped_by(Cause::Refused),
        stats.dropped_by(Cause::Unreachable),
        stats.total_retries(),
    ]
}

#[tokio::test]
async fn what_fails_in_passing_is_tried_again() {
    assert_eq!(
        outcome(&[Err(Code::Unavailable), Err(Code::ResourceExhausted), Ok(0)]).await,
        [14, 0, 0, 2]
    );
}

#[tokio::test]
async fn what_is_rejected_in_part_is_counted_as_refused_and_not_sent_again() {
    assert_eq!(outcome(&[Ok(3), Ok(1)]).await, [10, 4, 0, 0]);
    // More than there was is no more than all.
    assert_eq!(outcome(&[Ok(99)]).await, [4, 10, 0, 0]);
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    assert_eq!(outcome(&[Err(Code::InvalidArgument)]).await, [4, 10, 0, 0]);
}

#[tokio::test]
async fn an_endpoint_without_metrics_is_not_down() {
    for (traces, sent, down) in [(Ok(0), 20, false), (Err(Code::Unimplemented), 0, true)] {
        let receiver = Receiver::default();
        let answers = [traces, Err(Code::Unimplemented), traces, Err(Code::Unimplemented)];
        receiver.answers.lock().unwrap().extend(answers);
        let exporter = exporter(&config(&receiver.serve().await, &[]));
        exporter.send(batch(10, 4));
        exporter.send(batch(10, 4));
        let stats = settled(exporter).await;
        assert_eq!((stats.total_sent(), stats.is_down()), (sent, down));
        assert_eq!(stats.dropped_by(Cause::Refused), 28 - sent);
    }
}

#[tokio::test]
async fn tries_end() {
    let all_fail = vec![Err(Code::Unavailable); 8];
    assert_eq!(outcome(&all_fail).await, [4, 0, 10, 7]);
}

#[tokio::test]
async fn nothing_waits_for_an_endpoint_that_is_not_there() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let exporter = Exporter::start(Config {
        grpc: Some(config(&url, &[])),
        files: None,
    })
    .unwrap();
    for _ in 0..QUEUE + 10 {
        exporter.send(batch(1, 0));
    }
    let stats = exporter.shutdown(Duration::from_millis(200)).await;
    assert_eq!((stats.total_produced(), stats.total_sent()), (QUEUE as u64 + 10, 0));
    assert_eq!(stats.total_dropped(), stats.total_produced());
    assert!(stats.dropped_by(Cause::QueueFull) >= 9);
    assert!(stats.dropped_by(Cause::Closed) + stats.dropped_by(Cause::Unreachable) > 0);
}

#[tokio::test]
async fn compression_and_headers_of_the_environment_are_sent() {
    let receiver = Receiver::default();
    let env = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20team"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=red"),
    ];
    let exporter = exporter(&config(&receiver.serve().await, &env));
    exporter.send(batch(10, 4));
    assert_eq!(settled(exporter).await.total_sent(), 14);
    let headers = receiver.headers.lock().unwrap();
    let of = |name: &str| -> Vec<&str> {
        headers
            .iter()
            .map(|map| map.get(name).map_or("", |value| value.to_str().unwrap()))
            .collect()
    };
    assert_eq!(of("grpc-encoding"), ["gzip", "gzip"]);
    assert_eq!(of("x-tenant"), ["blue team", "red"]);
}

#[tokio::test]
async fn every_sink_says_the_same_and_a_series_begin_does_not_move() {
    let receiver = Receiver::default();
    let directory = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(Config {
        grpc: Some(config(&receiver.serve().await, &[])),
        files: Some(FilesConfig {
            directory: directory.path().to_owned(),
            rotate: 1 << 30,
        }),
    })
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
    assert_eq!(*receiver.traces.lock().unwrap(), traces);
    assert_eq!(*receiver.metrics.lock().unwrap(), metrics);
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
