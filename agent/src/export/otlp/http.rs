//! OTLP over HTTP, protobuf.

use std::{io::Write as _, sync::Arc, time::Duration};

use axum::body::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    Method, StatusCode, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
    profiles::v1development::ExportProfilesServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{Answer, Failure, Message};
use crate::{
    exit::causes,
    export::config::{ConfigError, Endpoint, Tls},
};

/// Most of an answer that is read, bytes (the OTLP specification advises 4 MiB).
const ANSWER: usize = 4 << 20;

/// Connections that are made, and made again, as they are needed.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let mut headers = endpoint.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("whywait/", env!("CARGO_PKG_VERSION"))),
        );
        if endpoint.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let tls = tls(&endpoint.tls).map_err(|reason| ConfigError::Tls {
            url: endpoint.url.to_string(),
            reason,
        })?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: endpoint.url.clone(),
            headers,
            gzip: endpoint.gzip,
            timeout: endpoint.timeout,
        })
    }

    /// One try.
    pub(super) async fn send(&self, message: &Message) -> Result<Answer, Failure> {
        let mut body = match message {
            Message::Traces(message) => message.encode_to_vec(),
            Message::Metrics(message) => message.encode_to_vec(),
            Message::Profiles(message) => message.encode_to_vec(),
            Message::Logs(message) => message.encode_to_vec(),
        };
        if self.gzip {
            body = gzip(&body).map_err(|error| Failure::Final(error.to_string()))?;
        }
        let late = |_| Failure::Passing {
            reason: format!("no answer within {:?}", self.timeout),
            after: None,
        };
        let answer = tokio::time::timeout(self.timeout, self.post(body.into()));
        let (status, headers, answer) = answer.await.map_err(late)??;
        if status.is_success() {
            return Ok(partial(message, &answer));
        }
        Err(failure(status, &headers))
    }

    async fn post(&self, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let passing = |error: &dyn std::error::Error| Failure::Passing {
            reason: causes(error),
            after: None,
        };
        let response = self.client.request(request).await.map_err(|error| passing(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(|error| passing(error.as_ref()))?.to_bytes();
        Ok((head.status, head.headers, body))
    }
}

fn tls(files: &Tls) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| causes(&error))?;
    // A given authority is trusted alone.
    let builder = match &files.certificate {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| causes(&error))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_webpki_roots(),
    };
    let Some((certificate, key)) = &files.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the client's key: {}", causes(&error)))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, key)
        .map_err(|error| causes(&error))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in the PEM file".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("the PEM file: {}", causes(&error))),
    }
}

/// What of a request was not taken. An answer that cannot be read was a success all the same.
fn partial(message: &Message, answer: &[u8]) -> Answer {
    let part = match message {
        Message::Traces(_) => ExportTraceServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_spans, part.error_message)),
        Message::Metrics(_) => ExportMetricsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_data_points, part.error_message)),
        Message::Profiles(_) => ExportProfilesServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_profiles, part.error_message)),
        Message::Logs(_) => ExportLogsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_log_records, part.error_message)),
    };
    Answer::partial(part)
}

/// Which statuses are worth another try: OTLP specification, OTLP/HTTP, Failures.
fn failure(status: StatusCode, headers: &HeaderMap) -> Failure {
    let reason = format!("answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            // Seconds; a date is left to the backoff.
            let seconds = headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            Failure::Passing {
                reason,
                after: seconds.map(Duration::from_secs),
            }
        }
        StatusCode::NOT_FOUND => Failure::NoService(reason),
        _ => Failure::Final(reason),
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_statuses_pass() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        for (status, passes) in [
            (429, true),
            (502, true),
            (503, true),
            (504, true),
            (400, false),
            (404, false),
            (500, false),
        ] {
            let found = failure(StatusCode::from_u16(status).unwrap(), &headers);
            match &found {
                Failure::Passing { after, .. } => assert!(passes && *after == Some(Duration::from_secs(7)), "{status}"),
                Failure::Final(_) | Failure::NoService(_) => assert!(!passes, "{status}"),
            }
        }
    }
}
