//! OTLP over gRPC. A request that fails in passing is tried again with growing pauses; what cannot be delivered is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable as _};
use log::{info, warn};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
};
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status,
    codec::CompressionEncoding::Gzip,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Transport},
};

use super::{
    ExportError, Outgoing, REQUEST,
    config::{ConfigError, Endpoint, GrpcConfig},
    otlp,
    stats::{Cause, ExportStats},
};
/// Tries after the first, with pauses from 0.5 s doubling to 16 s: about a minute in all.
const RETRIES: usize = 7;

/// Sends batches one after the other.
pub(super) struct Worker {
    traces: (Channel, Endpoint),
    metrics: (Channel, Endpoint),
    stats: Arc<ExportStats>,
    pauses: ExponentialBuilder,
    /// The metrics endpoint has no such service, and that was said.
    no_metrics: AtomicBool,
}

impl Worker {
    /// Connects lazily: the endpoint may come up later.
    pub(super) fn new(config: &GrpcConfig, stats: Arc<ExportStats>) -> Result<Self, ExportError> {
        let open = |endpoint: &Endpoint| -> Result<(Channel, Endpoint), ConfigError> {
            let bad = |reason: String| ConfigError::Url {
                url: endpoint.url.clone(),
                reason,
            };
            let mut transport = Transport::from_shared(endpoint.url.clone()).map_err(|error| bad(error.to_string()))?;
            transport = transport.timeout(endpoint.timeout).connect_timeout(endpoint.timeout);
            if endpoint.url.starts_with("https://") {
                let mut tls = ClientTlsConfig::new().with_webpki_roots();
                if let Some(pem) = &endpoint.certificate {
                    tls = tls.ca_certificate(Certificate::from_pem(pem));
                }
                transport = transport.tls_config(tls).map_err(|error| bad(error.to_string()))?;
            }
            Ok((transport.connect_lazy(), endpoint.clone()))
        };
        Ok(Self {
            traces: open(&config.traces)?,
            metrics: open(&config.metrics)?,
            stats,
            pauses: ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(500))
                .with_max_delay(Duration::from_secs(16))
                .with_max_times(RETRIES),
            no_metrics: AtomicBool::new(false),
        })
    }

    /// A worker that tests need not wait for.
    #[cfg(test)]
    pub(super) fn hurry(mut self) -> Self {
        self.pauses = self.pauses.with_min_delay(Duration::from_millis(1));
        self
    }

    pub(super) async fn run(self, mut queue: mpsc::Receiver<Arc<Outgoing>>) {
        while let Some(batch) = queue.recv().await {
            for (request, items) in otlp::trace_requests(&batch, REQUEST) {
                self.deliver(items, || self.send_traces(&request)).await;
            }
            for (request, items) in otlp::metric_requests(&batch, REQUEST) {
                self.deliver(items, || self.send_metrics(&request)).await;
            }
        }
    }

    /// Sends until it is taken, refused, or given up; says once when the endpoint goes down and when it is back.
    async fn deliver<F: Future<Output = Result<u64, Status>>>(&self, items: u64, send: impl Fn() -> F) {
        let outcome = (|| async {
            let outcome = send().await;
            if let Err(status) = &outcome
                && is_passing(status)
                && self.stats.set_down(true)
            {
                warn!(
                    "OTLP endpoint {} does not take data ({}): trying again, dropping what the queue cannot hold",
                    self.traces.1.url,
                    brief(status)
                );
            }
            outcome
        })
        .retry(self.pauses)
        .when(|status| is_passing(status) && !self.stats.is_closing())
        .notify(|_, _| self.stats.retried())
        .await;
        match outcome {
            Ok(rejected) => {
                let rejected = rejected.min(items);
                if rejected < items && self.stats.set_down(false) {
                    info!("OTLP endpoint {} takes data again", self.traces.1.url);
                }
                self.stats.sent(items - rejected);
                self.stats.dropped(rejected, Cause::Refused);
            }
            Err(status) if is_passing(&status) => self.stats.dropped(items, Cause::Unreachable),
            Err(status) => {
                if self.stats.set_down(true) {
                    warn!("OTLP endpoint {} refused data: {}", self.traces.1.url, brief(&status));
                }
                self.stats.dropped(items, Cause::Refused);
            }
        }
    }

    /// The number of spans the endpoint took the request without.
    async fn send_traces(&self, request: &ExportTraceServiceRequest) -> Result<u64, Status> {
        let (channel, endpoint) = &self.traces;
        let mut client = TraceServiceClient::new(channel.clone());
        if endpoint.gzip {
            client = client.send_compressed(Gzip).accept_compressed(Gzip);
        }
        let response = client
            .export(with_headers(request.clone(), endpoint))
            .await?
            .into_inner();
        Ok(response
            .partial_success
            .map_or(0, |partial| partial.rejected_spans.max(0) as u64))
    }

    /// The number of points the endpoint took the request without: all, where it has no service for metrics. Jaeger has
    /// none, which is no fault of its: spans go on.
    async fn send_metrics(&self, request: &ExportMetricsServiceRequest) -> Result<u64, Status> {
        let (channel, endpoint) = &self.metrics;
        let mut client = MetricsServiceClient::new(channel.clone());
        if endpoint.gzip {
            client = client.send_compressed(Gzip).accept_compressed(Gzip);
        }
        let response = match client.export(with_headers(request.clone(), endpoint)).await {
            Err(status) if status.code() == Code::Unimplemented => {
                if !self.no_metrics.swap(true, Relaxed) {
                    warn!(
                        "OTLP endpoint {} takes no metrics: they are dropped; to send them elsewhere, set \
                         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_METRICS_ENDPOINT instead of --otlp",
                        endpoint.url
                    );
                }
                return Ok(u64::MAX);
            }
            outcome => outcome?.into_inner(),
        };
        Ok(response
            .partial_success
            .map_or(0, |partial| partial.rejected_data_points.max(0) as u64))
    }
}

fn with_headers<T>(message: T, endpoint: &Endpoint) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in &endpoint.headers {
        request.metadata_mut().insert(key.clone(), value.clone());
    }
    request
}

/// Codes that the OTLP specification says to retry.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // What the transport says when a connection breaks in the middle.
            | Code::Unknown
    )
}

fn brief(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    format!("{:?}: {text}", status.code())
}
