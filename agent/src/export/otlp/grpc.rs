//! OTLP over gRPC, by the generated clients.

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_client::LogsServiceClient, metrics::v1::metrics_service_client::MetricsServiceClient,
    profiles::v1development::profiles_service_client::ProfilesServiceClient,
    trace::v1::trace_service_client::TraceServiceClient,
};
use tonic::{
    Code, Request, Status,
    codec::CompressionEncoding::Gzip,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Transport, Identity},
};
use tonic_types::StatusExt as _;

use super::{Answer, Failure, Message};
use crate::{
    exit::causes,
    export::config::{ConfigError, Endpoint},
};

/// A connection that is made, and made again, as it is needed.
pub(super) struct Grpc {
    traces: TraceServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
    profiles: ProfilesServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    headers: HeaderMap,
}

impl Grpc {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let bad = |error: tonic::transport::Error| ConfigError::Tls {
            url: endpoint.url.to_string(),
            reason: causes(&error),
        };
        let mut transport = Transport::from(endpoint.url.clone())
            .user_agent(concat!("whywait/", env!("CARGO_PKG_VERSION")))
            .map_err(bad)?
            .timeout(endpoint.timeout)
            .connect_timeout(endpoint.timeout)
            // A connection that swallows everything, as after a firewall forgot it, is found out with the request that it swallowed,
            // and the next try gets another. Not while idle: servers of grpc-go's answer pings without requests by closing
            // (keepalive.EnforcementPolicy), and take two without an answer of theirs between.
            .http2_keep_alive_interval(endpoint.timeout / 2)
            .keep_alive_timeout(endpoint.timeout / 2)
            .keep_alive_while_idle(false);
        if endpoint.url.scheme_str() == Some("https") {
            // A given authority is trusted alone.
            let mut tls = match &endpoint.tls.certificate {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_webpki_roots(),
            };
            if let Some((certificate, key)) = &endpoint.tls.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            transport = transport.tls_config(tls).map_err(bad)?;
        }
        let channel = transport.connect_lazy();
        let mut traces = TraceServiceClient::new(channel.clone()).accept_compressed(Gzip);
        let mut metrics = MetricsServiceClient::new(channel.clone()).accept_compressed(Gzip);
        let mut profiles = ProfilesServiceClient::new(channel.clone()).accept_compressed(Gzip);
        let mut logs = LogsServiceClient::new(channel).accept_compressed(Gzip);
        if endpoint.gzip {
            (traces, metrics) = (traces.send_compressed(Gzip), metrics.send_compressed(Gzip));
            (profiles, logs) = (profiles.send_compressed(Gzip), logs.send_compressed(Gzip));
        }
        Ok(Self {
            traces,
            metrics,
            profiles,
            logs,
            headers: endpoint.headers.clone(),
        })
    }

    /// One try. Clients want to be changed; their clones share a connection.
    pub(super) async fn send(&self, message: &Message) -> Result<Answer, Failure> {
        let answer = match message {
            Message::Traces(message) => {
                let request = self.request(message.clone());
                self.traces.clone().export(request).await.map(|response| {
                    let partial = response.into_inner().partial_success;
                    Answer::partial(partial.map(|part| (part.rejected_spans, part.error_message)))
                })
            }
            Message::Metrics(message) => {
                let request = self.request(message.clone());
                self.metrics.clone().export(request).await.map(|response| {
                    let partial = response.into_inner().partial_success;
                    Answer::partial(partial.map(|part| (part.rejected_data_points, part.error_message)))
                })
            }
            Message::Profiles(message) => {
                let request = self.request(message.clone());
                self.profiles.clone().export(request).await.map(|response| {
                    let partial = response.into_inner().partial_success;
                    Answer::partial(partial.map(|part| (part.rejected_profiles, part.error_message)))
                })
            }
            Message::Logs(message) => {
                let request = self.request(message.clone());
                self.logs.clone().export(request).await.map(|response| {
                    let partial = response.into_inner().partial_success;
                    Answer::partial(partial.map(|part| (part.rejected_log_records, part.error_message)))
                })
            }
        };
        answer.map_err(|status| failure(&status))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        request
    }
}

/// Which codes are worth another try: OTLP specification, OTLP/gRPC, Failures.
fn failure(status: &Status) -> Failure {
    let source = std::error::Error::source(status);
    let reason = match source {
        Some(source) => format!("{:?}: {}", status.code(), causes(source)),
        None => format!("{:?}: {}", status.code(), status.message()),
    };
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Passing { reason, after },
        // Only when the endpoint says when.
        Code::ResourceExhausted if after.is_some() => Failure::Passing { reason, after },
        // tonic's own of a connection that broke in the middle; an endpoint's answer has no source.
        Code::Unknown if source.is_some() => Failure::Passing { reason, after },
        Code::Unimplemented => Failure::NoService(reason),
        _ => Failure::Final(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn which_codes_pass() {
        for (code, passes) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::Cancelled, true),
            (Code::ResourceExhausted, false),
            (Code::InvalidArgument, false),
            (Code::Unauthenticated, false),
            (Code::Unknown, false),
        ] {
            let found = failure(&Status::new(code, "why"));
            assert_eq!(matches!(found, Failure::Passing { .. }), passes, "{code:?} {found:?}");
        }
    }

    #[test]
    fn an_endpoint_that_is_exhausted_says_when() {
        let delay = Some(Duration::from_secs(7));
        let details = ErrorDetails::with_retry_info(delay);
        let status = Status::with_error_details(Code::ResourceExhausted, "later", details);
        assert!(matches!(failure(&status), Failure::Passing { after, .. } if after == delay));
    }
}
