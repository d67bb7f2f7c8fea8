//! The OTLP endpoint, by flag or by the standard variables (OTel specification, OpenTelemetry Protocol Exporter).

use std::{collections::HashMap, fs, time::Duration};

use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

/// A gRPC endpoint for each signal.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    pub traces: Endpoint,
    pub metrics: Endpoint,
}

/// What goes along with each request.
pub type Headers = Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>;

/// One signal's endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    pub headers: Headers,
    pub timeout: Duration,
    pub gzip: bool,
    /// PEM of the authority to trust; the built-in roots when absent.
    pub certificate: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}={value}: {reason}")]
    Variable {
        name: String,
        value: String,
        reason: String,
    },
    #[error("--otlp {url}: {reason}; write e.g. http://127.0.0.1:4317")]
    Url { url: String, reason: String },
}

/// The endpoint from the flag, else from the variables, else none.
pub fn from_flag_and_env(flag: Option<&str>, env: &HashMap<String, String>) -> Result<Option<GrpcConfig>, ConfigError> {
    let has = |name: &str| env.get(name).is_some_and(|value| !value.is_empty());
    let names = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    ];
    if flag.is_none() && !names.into_iter().any(has) {
        return Ok(None);
    }
    Ok(Some(GrpcConfig {
        traces: endpoint("TRACES", flag, env)?,
        metrics: endpoint("METRICS", flag, env)?,
    }))
}

fn endpoint(signal: &str, flag: Option<&str>, env: &HashMap<String, String>) -> Result<Endpoint, ConfigError> {
    // A signal's own variable comes before the general one.
    let get = |suffix: &str| {
        [
            format!("OTEL_EXPORTER_OTLP_{signal}_{suffix}"),
            format!("OTEL_EXPORTER_OTLP_{suffix}"),
        ]
        .into_iter()
        .find_map(|name| {
            env.get(&name)
                .filter(|value| !value.is_empty())
                .map(|value| (name, value.clone()))
        })
    };
    let bad = |(name, value): (String, String), reason: &str| ConfigError::Variable {
        name,
        value,
        reason: reason.to_owned(),
    };
    if let Some(found) = get("PROTOCOL")
        && found.1 != "grpc"
    {
        return Err(bad(found, "only grpc is supported; unset it or set it to grpc"));
    }
    let (origin, url) = match (flag, get("ENDPOINT")) {
        (Some(url), _) => (None, url.to_owned()),
        (None, Some(found)) => (Some(found.0), found.1),
        (None, None) => (None, "http://localhost:4317".to_owned()),
    };
    check_url(&url).map_err(|reason| match origin {
        Some(name) => ConfigError::Variable {
            name,
            value: url.clone(),
            reason,
        },
        None => ConfigError::Url {
            url: url.clone(),
            reason,
        },
    })?;
    let timeout = match get("TIMEOUT") {
        None => Duration::from_secs(10),
        Some(found) => match found.1.parse() {
            Ok(millis) => Duration::from_millis(millis),
            Err(_) => return Err(bad(found, "not a number of milliseconds")),
        },
    };
    let gzip = match get("COMPRESSION") {
        None => false,
        Some(found) => match found.1.as_str() {
            "gzip" => true,
            "none" => false,
            _ => return Err(bad(found, "use gzip or none")),
        },
    };
    let certificate = match get("CERTIFICATE") {
        None => None,
        Some((name, value)) => match fs::read(&value) {
            Ok(pem) => Some(pem),
            Err(error) => return Err(bad((name, value), &error.to_string())),
        },
    };
    let headers = get("HEADERS").map_or(Ok(Vec::new()), |found| {
        headers(&found.1).map_err(|reason| bad(found, &reason))
    })?;
    Ok(Endpoint {
        url,
        headers,
        timeout,
        gzip,
        certificate,
    })
}

fn check_url(url: &str) -> Result<(), String> {
    let uri: tonic::transport::Uri = url.parse().map_err(|error| format!("not a URL ({error})"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some() => Ok(()),
        _ => Err("not an http:// or https:// URL with a host".to_owned()),
    }
}

/// "key=value,key2=value2", values percent-encoded (W3C baggage).
fn headers(text: &str) -> Result<Headers, String> {
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair}: not key=value"))?;
            let value = crate::enrich::percent_decode(value.trim());
            let key = key
                .trim()
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| format!("{key}: not a header's name"))?;
            Ok((key, value.parse().map_err(|_| format!("{pair}: not a header's value"))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flag: Option<&str>, env: &[(&str, &str)]) -> Result<Option<GrpcConfig>, ConfigError> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        from_flag_and_env(flag, &env)
    }

    #[test]
    fn nothing_said_is_no_endpoint() {
        assert!(load(None, &[]).unwrap().is_none());
        assert!(load(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().is_none());
    }

    #[test]
    fn the_flag_wins_and_a_signals_own_variable_comes_before_the_general_one() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b:2");
        let found = load(None, &[general, own]).unwrap().unwrap();
        assert_eq!(
            (found.traces.url.as_str(), found.metrics.url.as_str()),
            ("http://a:1", "http://b:2")
        );
        let found = load(Some("http://c:3"), &[general, own]).unwrap().unwrap();
        assert_eq!(
            (found.traces.url.as_str(), found.metrics.url.as_str()),
            ("http://c:3", "http://c:3")
        );
    }

    #[test]
    fn headers_timeout_and_compression_are_taken() {
        let env = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x, b=2"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ];
        let found = load(Some("http://c:3"), &env).unwrap().unwrap().traces;
        let headers: Vec<_> = found
            .headers
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("authorization", "Bearer x"), ("b", "2")]);
        assert_eq!((found.timeout, found.gzip), (Duration::from_millis(250), true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |flag, env: &[(&str, &str)], expected: &str| {
            let error = load(flag, env).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Some("localhost:4317"), &[], "--otlp localhost:4317");
        check(Some("ftp://x"), &[], "not an http://");
        check(
            Some("http://x"),
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            "only grpc",
        );
        check(
            Some("http://x"),
            &[("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
            "OTEL_EXPORTER_OTLP_TIMEOUT=soon",
        );
        check(
            Some("http://x"),
            &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem")],
            "/no/such.pem",
        );
    }
}
