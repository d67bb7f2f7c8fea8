//! Where OTLP goes: the flag over the standard variables (OTel specification, OpenTelemetry Protocol Exporter).

use std::{collections::HashMap, fs, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// Each signal's way over the network; a signal without one was switched off.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    pub traces: Option<Endpoint>,
    pub metrics: Option<Endpoint>,
    pub logs: Option<Endpoint>,
}

/// One signal's endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// With a scheme; over HTTP with the signal's path.
    pub url: Uri,
    pub protocol: Protocol,
    pub headers: HeaderMap,
    /// Of one try.
    pub timeout: Duration,
    pub gzip: bool,
    pub tls: Tls,
}

/// OTLP's transports that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// PEM, for https.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Of the authority to trust; the built-in roots when absent.
    pub certificate: Option<Vec<u8>>,
    /// The client's certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}={value}: {reason}")]
    Variable {
        name: String,
        value: String,
        reason: String,
    },
    /// Values of headers are secrets.
    #[error("{name}: {reason}; write key=value pairs with commas between, values percent-encoded")]
    Headers { name: String, reason: String },
    #[error("--otlp {url}: {reason}; write e.g. http://127.0.0.1:4317")]
    Url { url: String, reason: String },
    #[error("{url}: TLS cannot be set up: {reason}")]
    Tls { url: String, reason: String },
}

/// The endpoints from the flag, else from the variables, else none.
pub fn from_flag_and_env(flag: Option<&str>, env: &HashMap<String, String>) -> Result<Option<OtlpConfig>, ConfigError> {
    let signal = |name, path| Variables { env, name, path };
    let (traces, metrics) = (signal("TRACES", "v1/traces"), signal("METRICS", "v1/metrics"));
    let logs = signal("LOGS", "v1/logs");
    let own = || metrics.own("ENDPOINT").or_else(|| logs.own("ENDPOINT"));
    if flag.is_none() && traces.either("ENDPOINT").or_else(own).is_none() {
        return Ok(None);
    }
    // Not to the specification's default endpoint beside those of other signals: events are few, and who names two endpoints wants two.
    let wants_logs = flag.is_some() || logs.either("ENDPOINT").is_some();
    Ok(Some(OtlpConfig {
        traces: traces.endpoint(flag)?,
        metrics: metrics.endpoint(flag)?,
        logs: if wants_logs { logs.endpoint(flag)? } else { None },
    }))
}

/// Where profiles go, which are sent only when a flag says where.
pub fn profiles_endpoint(flag: &str, env: &HashMap<String, String>) -> Result<Endpoint, ConfigError> {
    let profiles = Variables {
        env,
        name: "PROFILES",
        path: "v1development/profiles",
    };
    profiles.connection(Some(flag))
}

/// A variable's name and value.
type Found = (String, String);

/// One signal's variables.
struct Variables<'a> {
    env: &'a HashMap<String, String>,
    name: &'static str,
    /// What a base URL gets over HTTP.
    path: &'static str,
}

impl Variables<'_> {
    /// None when OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER or OTEL_LOGS_EXPORTER is `none`, flag or not.
    fn endpoint(&self, flag: Option<&str>) -> Result<Option<Endpoint>, ConfigError> {
        match self.variable(format!("OTEL_{}_EXPORTER", self.name)) {
            Some((_, value)) if value == "none" => return Ok(None),
            Some((_, value)) if value == "otlp" => {}
            Some(found) => return Err(bad(found, "use otlp or none")),
            None => {}
        }
        self.connection(flag).map(Some)
    }

    fn connection(&self, flag: Option<&str>) -> Result<Endpoint, ConfigError> {
        let protocol = match self.either("PROTOCOL") {
            None => Protocol::Grpc,
            Some((_, value)) if value == "grpc" => Protocol::Grpc,
            Some((_, value)) if value == "http/protobuf" => Protocol::HttpProtobuf,
            Some(found) => return Err(bad(found, "use grpc or http/protobuf")),
        };
        let url = self.url(flag, protocol)?;
        let timeout = match self.either("TIMEOUT") {
            None => Duration::from_secs(10),
            Some(found) => match found.1.parse() {
                Ok(millis) if millis > 0 => Duration::from_millis(millis),
                _ => return Err(bad(found, "not a number of milliseconds above 0")),
            },
        };
        let gzip = match self.either("COMPRESSION") {
            None => false,
            Some((_, value)) if value == "none" => false,
            Some((_, value)) if value == "gzip" => true,
            Some(found) => return Err(bad(found, "use gzip or none")),
        };
        Ok(Endpoint {
            url,
            protocol,
            headers: self.headers()?,
            timeout,
            gzip,
            tls: self.tls()?,
        })
    }

    fn url(&self, flag: Option<&str>, protocol: Protocol) -> Result<Uri, ConfigError> {
        let default = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf => "http://localhost:4318",
        };
        // Whose error it would be, the value, and whether it is a base that each signal's path is added to.
        let (variable, value, is_base) = match (flag, self.own("ENDPOINT"), self.general("ENDPOINT")) {
            (Some(url), _, _) => (None, url.to_owned(), true),
            (None, Some((name, value)), _) => (Some(name), value, false),
            (None, None, Some((name, value))) => (Some(name), value, true),
            (None, None, None) => (None, default.to_owned(), true),
        };
        let mut text = value.clone();
        if variable.is_some() && !text.contains("://") {
            let scheme = if self.is_insecure()? { "http" } else { "https" };
            text = format!("{scheme}://{text}");
        }
        if is_base && protocol == Protocol::HttpProtobuf {
            text = format!("{}/{}", text.trim_end_matches('/'), self.path);
        }
        let parsed = match text.parse::<Uri>() {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => return Ok(uri),
            Ok(_) => "not an http:// or https:// URL with a host".to_owned(),
            Err(error) => format!("not a URL ({error})"),
        };
        Err(match variable {
            Some(name) => bad((name, value), &parsed),
            None => ConfigError::Url {
                url: value,
                reason: parsed,
            },
        })
    }

    /// Whether an endpoint without a scheme is http.
    fn is_insecure(&self) -> Result<bool, ConfigError> {
        match self.either("INSECURE") {
            None => Ok(false),
            Some((_, value)) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some((_, value)) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(found) => Err(bad(found, "use true or false")),
        }
    }

    /// "key=value,key2=value2", values percent-encoded (W3C baggage).
    fn headers(&self) -> Result<HeaderMap, ConfigError> {
        let Some((name, text)) = self.either("HEADERS") else {
            return Ok(HeaderMap::new());
        };
        let bad = |reason: String| ConfigError::Headers {
            name: name.clone(),
            reason,
        };
        let mut headers = HeaderMap::new();
        for (index, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| bad(format!("pair {} has no =", index + 1)))?;
            let key = HeaderName::from_bytes(key.trim().as_bytes())
                .map_err(|_| bad(format!("pair {}: not a header's name", index + 1)))?;
            let mut value = HeaderValue::from_str(&crate::enrich::percent_decode(value.trim()))
                .map_err(|_| bad(format!("{key}: not a header's value")))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        Ok(headers)
    }

    fn tls(&self) -> Result<Tls, ConfigError> {
        let file = |suffix: &str| -> Result<Option<Vec<u8>>, ConfigError> {
            self.either(suffix)
                .map(|found| fs::read(&found.1).map_err(|error| bad(found, &error.to_string())))
                .transpose()
        };
        let identity = match (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                let found = self.either("CLIENT_CERTIFICATE").or_else(|| self.either("CLIENT_KEY"));
                return Err(bad(
                    found.unwrap_or_default(),
                    "a client's certificate and its key go together; set both",
                ));
            }
        };
        Ok(Tls {
            certificate: file("CERTIFICATE")?,
            identity,
        })
    }

    /// The signal's own variable, else the general one.
    fn either(&self, suffix: &str) -> Option<Found> {
        self.own(suffix).or_else(|| self.general(suffix))
    }

    fn own(&self, suffix: &str) -> Option<Found> {
        self.variable(format!("OTEL_EXPORTER_OTLP_{}_{suffix}", self.name))
    }

    fn general(&self, suffix: &str) -> Option<Found> {
        self.variable(format!("OTEL_EXPORTER_OTLP_{suffix}"))
    }

    /// An empty variable is as good as none (OTel specification, Environment Variable Specification).
    fn variable(&self, name: String) -> Option<Found> {
        let value = self.env.get(&name)?.trim();
        (!value.is_empty()).then(|| (name, value.to_owned()))
    }
}

fn bad((name, value): Found, reason: &str) -> ConfigError {
    ConfigError::Variable {
        name,
        value,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
