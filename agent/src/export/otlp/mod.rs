//! Sink: OTLP over the network. A worker a signal, so that two endpoints do not hold each other up: one request at a time,
//! tried again while its failure may pass; what cannot be delivered is counted.

mod grpc;
mod http;

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use log::{info, warn};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    profiles::v1development::ExportProfilesServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use tokio::sync::mpsc;

use super::{
    config::{ConfigError, Endpoint, Protocol},
    encode,
    queue::Queued,
    stats::{Cause, ExportStats, Signal},
};

/// Tries after the first, with pauses from 0.5 s doubling to 16 s: about a minute in all.
const RETRIES: usize = 7;
/// The longest pause an endpoint may ask for; longer ones are cut to it.
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// A request and what sends it.
#[derive(Clone, Debug)]
enum Message {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Profiles(ExportProfilesServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// A request that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    /// Spans, points or events that were not.
    rejected: u64,
    /// Why, or a warning.
    message: String,
}

/// A request that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// May be tried again, not before `after`.
    Passing { reason: String, after: Option<Duration> },
    /// The same request would fail again.
    Final(String),
    /// The endpoint has no such service. Jaeger has none for metrics and logs, which is no fault of its.
    NoService(String),
}

enum Transport {
    Grpc(Box<grpc::Grpc>),
    Http(Box<http::Http>),
}

/// Delivers one signal to one endpoint.
pub(super) struct Worker {
    signal: Signal,
    transport: Transport,
    url: String,
    stats: Arc<ExportStats>,
    pauses: ExponentialBuilder,
    /// That there is no such service, that parts are rejected: said once each.
    said_no_service: bool,
    said_rejected: bool,
}

impl Worker {
    /// Connects when it first sends: the endpoint may come up later.
    pub(super) fn new(signal: Signal, endpoint: &Endpoint, stats: Arc<ExportStats>) -> Result<Self, ConfigError> {
        Ok(Self {
            signal,
            transport: Transport::new(endpoint)?,
            url: endpoint.url.to_string(),
            stats,
            pauses: ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(500))
                .with_max_delay(Duration::from_secs(16))
                .with_max_times(RETRIES),
            said_no_service: false,
            said_rejected: false,
        })
    }

    /// A worker that tests need not wait for.
    #[cfg(test)]
    pub(super) fn hurry(mut self) -> Self {
        self.pauses = self.pauses.with_min_delay(Duration::from_millis(1));
        self
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(queued) = queue.recv().await {
            let batch = &queued.outgoing;
            let requests: Vec<(Message, u64)> = match self.signal {
                Signal::Traces => encode::trace_requests(batch)
                    .into_iter()
                    .map(|(request, items)| (Message::Traces(request), items))
                    .collect(),
                Signal::Metrics => encode::metric_requests(batch)
                    .into_iter()
                    .map(|(request, items)| (Message::Metrics(request), items))
                    .collect(),
                Signal::Logs => encode::log_requests(batch)
                    .into_iter()
                    .map(|(request, items)| (Message::Logs(request), items))
                    .collect(),
            };
            for (request, items) in requests {
                self.deliver(&request, items).await;
            }
        }
    }

    /// Sends until it is taken, refused, or given up; says once when the endpoint goes down and when it is back.
    async fn deliver(&mut self, request: &Message, items: u64) {
        let outcome = self.send(request).await;
        match outcome {
            Ok(Answer { rejected, message }) => {
                if self.stats.set_down(self.signal, false) {
                    info!("OTLP endpoint {} accepts {} again", self.url, self.signal);
                }
                if (rejected > 0 || !message.is_empty()) && !std::mem::replace(&mut self.said_rejected, true) {
                    warn!(
                        "OTLP endpoint {} rejected {rejected} of {items} {}: {message}",
                        self.url,
                        self.signal.items()
                    );
                }
                let rejected = rejected.min(items);
                self.stats.sent(items - rejected);
                self.stats.dropped(rejected, Cause::Refused);
            }
            Err(Failure::Passing { .. }) => self.stats.dropped(items, Cause::Unreachable),
            Err(Failure::NoService(_)) if self.signal != Signal::Traces => {
                if !std::mem::replace(&mut self.said_no_service, true) {
                    let variable = self.signal.to_string().to_uppercase();
                    warn!(
                        "OTLP endpoint {} accepts no {}: they are dropped; set OTEL_{variable}_EXPORTER=none to send none, or, to send them elsewhere, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_{variable}_ENDPOINT instead of --otlp",
                        self.url, self.signal
                    );
                }
                self.stats.dropped(items, Cause::NoService);
            }
            Err(Failure::Final(reason) | Failure::NoService(reason)) => {
                if self.stats.set_down(self.signal, true) {
                    warn!("OTLP endpoint {} refused {}: {reason}", self.url, self.signal);
                }
                self.stats.dropped(items, Cause::Refused);
            }
        }
    }

    async fn send(&self, request: &Message) -> Result<Answer, Failure> {
        let attempt = || async {
            let outcome = self.transport.send(request).await;
            if let Err(Failure::Passing { reason, .. }) = &outcome
                && self.stats.set_down(self.signal, true)
            {
                warn!(
                    "OTLP endpoint {} does not accept {} ({reason}): retrying; what does not fit into the queue is dropped",
                    self.url, self.signal
                );
            }
            outcome
        };
        attempt
            .retry(self.pauses)
            .when(|failure| matches!(failure, Failure::Passing { .. }) && !self.stats.is_closing())
            .adjust(|failure, pause| match (failure, pause) {
                (Failure::Passing { after: Some(after), .. }, Some(pause)) => Some(pause.max(*after).min(PAUSE_MOST)),
                (_, pause) => pause,
            })
            .notify(|_, _| self.stats.retried())
            .await
    }
}

/// Tries to send profiles for half a minute; an error is what people are told.
pub(super) async fn send_profiles(endpoint: &Endpoint, request: ExportProfilesServiceRequest) -> Result<(), String> {
    const TRIES: usize = 6;
    let transport = Transport::new(endpoint).map_err(|error| error.to_string())?;
    let message = Message::Profiles(request);
    let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(500));
    let outcome = (|| transport.send(&message))
        .retry(pauses.with_max_times(TRIES))
        .when(|failure| matches!(failure, Failure::Passing { .. }))
        .await;
    match outcome {
        Ok(Answer { rejected: 0, .. }) => Ok(()),
        Ok(Answer { rejected, message }) => Err(format!("{rejected} profiles were rejected: {message}")),
        Err(Failure::Passing { reason, .. } | Failure::Final(reason)) => Err(reason),
        Err(Failure::NoService(reason)) => Err(format!(
            "it takes no profiles ({reason}); a Collector does with --feature-gates=service.profilesSupport and a pipeline for them"
        )),
    }
}

impl Transport {
    fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        Ok(match endpoint.protocol {
            Protocol::Grpc => Self::Grpc(grpc::Grpc::new(endpoint)?.into()),
            Protocol::HttpProtobuf => Self::Http(http::Http::new(endpoint)?.into()),
        })
    }

    /// One try.
    async fn send(&self, message: &Message) -> Result<Answer, Failure> {
        match self {
            Self::Grpc(grpc) => grpc.send(message).await,
            Self::Http(http) => http.send(message).await,
        }
    }
}

impl Answer {
    /// OTLP counts rejected items in a signed number; 0 with a message is a warning.
    fn partial(success: Option<(i64, String)>) -> Self {
        success.map_or_else(Self::default, |(rejected, message)| Self {
            rejected: u64::try_from(rejected).unwrap_or(0),
            message,
        })
    }
}
