//! A receiver made of the protocol's own server types, over gRPC and HTTP.

use std::{
    collections::VecDeque,
    io::Read as _,
    sync::{Arc, Mutex},
};

use axum::{body::Bytes, routing::post};
use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use prost::Message as _;
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding::Gzip,
    transport::{Server, server::TcpIncoming},
};

/// An answer: items rejected in part, or the request's failure. Without one left everything is taken.
pub(super) type Answer = Result<i64, Code>;

/// What came in of one signal, and what is answered.
pub(super) struct Inbox<T> {
    pub(super) answers: Mutex<VecDeque<Answer>>,
    pub(super) taken: Mutex<Vec<T>>,
    headers: Mutex<Vec<HeaderMap>>,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            taken: Mutex::default(),
            headers: Mutex::default(),
        }
    }
}

impl<T> Inbox<T> {
    fn take(&self, headers: HeaderMap, message: T) -> Answer {
        self.headers.lock().unwrap().push(headers);
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(0));
        if answer.is_ok() {
            self.taken.lock().unwrap().push(message);
        }
        answer
    }

    fn grpc(&self, request: Request<T>) -> Result<i64, Status> {
        let (headers, _, message) = request.into_parts();
        self.take(headers.into_headers(), message)
            .map_err(|code| Status::new(code, "as the test wants it"))
    }

    /// Each request's value of a header, "" for none.
    pub(super) fn header(&self, name: &str) -> Vec<String> {
        let of = |map: &HeaderMap| map.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        self.headers.lock().unwrap().iter().map(of).collect()
    }
}

#[derive(Clone, Default)]
pub(super) struct Receiver {
    pub(super) traces: Arc<Inbox<ExportTraceServiceRequest>>,
    pub(super) metrics: Arc<Inbox<ExportMetricsServiceRequest>>,
    pub(super) logs: Arc<Inbox<ExportLogsServiceRequest>>,
}

impl Receiver {
    /// Serves gRPC on a free port until the test's runtime ends.
    pub(super) async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(TraceServiceServer::new(self.clone()).accept_compressed(Gzip))
            .add_service(MetricsServiceServer::new(self.clone()).accept_compressed(Gzip))
            .add_service(LogsServiceServer::new(self.clone()).accept_compressed(Gzip))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        url
    }

    /// Serves HTTP likewise.
    pub(super) async fn serve_http(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (traces, metrics) = (self.traces.clone(), self.metrics.clone());
        let logs = self.logs.clone();
        let app = axum::Router::new()
            .route(
                "/base/v1/traces",
                post(move |headers: HeaderMap, body: Bytes| async move {
                    let message = ExportTraceServiceRequest::decode(unpack(&headers, &body).as_slice()).unwrap();
                    answer(traces.take(headers, message), |rejected_spans| {
                        ExportTraceServiceResponse {
                            partial_success: Some(ExportTracePartialSuccess {
                                rejected_spans,
                                ..ExportTracePartialSuccess::default()
                            }),
                        }
                    })
                }),
            )
            .route(
                "/base/v1/metrics",
                post(move |headers: HeaderMap, body: Bytes| async move {
                    let message = ExportMetricsServiceRequest::decode(unpack(&headers, &body).as_slice()).unwrap();
                    answer(metrics.take(headers, message), |rejected_data_points| {
                        ExportMetricsServiceResponse {
                            partial_success: Some(ExportMetricsPartialSuccess {
                                rejected_data_points,
                                ..ExportMetricsPartialSuccess::default()
                            }),
                        }
                    })
                }),
            )
            .route(
                "/base/v1/logs",
                post(move |headers: HeaderMap, body: Bytes| async move {
                    let message = ExportLogsServiceRequest::decode(unpack(&headers, &body).as_slice()).unwrap();
                    answer(logs.take(headers, message), |rejected_log_records| {
                        ExportLogsServiceResponse {
                            partial_success: Some(ExportLogsPartialSuccess {
                                rejected_log_records,
                                ..ExportLogsPartialSuccess::default()
                            }),
                        }
                    })
                }),
            );
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("{url}/base")
    }
}

fn unpack(headers: &HeaderMap, body: &Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    if !headers.contains_key("content-encoding") {
        return body.to_vec();
    }
    let mut unpacked = Vec::new();
    GzDecoder::new(body.as_ref()).read_to_end(&mut unpacked).unwrap();
    unpacked
}

fn answer<T: prost::Message>(answer: Answer, partial: impl FnOnce(i64) -> T) -> (StatusCode, Vec<u8>) {
    match answer {
        Ok(rejected) => (StatusCode::OK, partial(rejected).encode_to_vec()),
        Err(Code::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        Err(_) => (StatusCode::BAD_REQUEST, Vec::new()),
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let rejected_spans = self.traces.grpc(request)?;
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
        let rejected_data_points = self.metrics.grpc(request)?;
        let partial_success = (rejected_data_points > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message: "in part".to_owned(),
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let rejected_log_records = self.logs.grpc(request)?;
        let partial_success = (rejected_log_records > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message: "in part".to_owned(),
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}
