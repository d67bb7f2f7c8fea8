//! Precedence of the flag and the variables; what is wrong is named.

use super::*;

fn load(flag: Option<&str>, env: &[(&str, &str)]) -> Result<Option<OtlpConfig>, ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    from_flag_and_env(flag, &env)
}

/// Where logs go: "" for none.
fn check_logs(flag: Option<&str>, env: &[(&str, &str)], expected: &str) {
    let logs = load(flag, env).unwrap().and_then(|found| found.logs);
    let url = logs.map(|found| found.url.to_string()).unwrap_or_default();
    assert_eq!(url, expected, "{flag:?} {env:?}");
}

#[test]
fn logs_go_where_all_goes_or_where_they_are_sent() {
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:2");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:3");
    let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l:4");
    check_logs(Some("http://c:3"), &[], "http://c:3/");
    check_logs(Some("http://c:3"), &[HTTP], "http://c:3/v1/logs");
    check_logs(Some("http://c:3"), &[("OTEL_LOGS_EXPORTER", "none")], "");
    check_logs(None, &[GENERAL], "http://a:1/");
    check_logs(None, &[traces, metrics], "");
    check_logs(None, &[traces, metrics, logs], "http://l:4/");
    check_logs(None, &[logs], "http://l:4/");
}

/// URLs of traces and metrics; "" for none.
fn check(flag: Option<&str>, env: &[(&str, &str)], traces: &str, metrics: &str) {
    let found = load(flag, env).unwrap();
    let url = |endpoint: Option<Endpoint>| endpoint.map(|found| found.url.to_string()).unwrap_or_default();
    let (found_traces, found_metrics) = found.map_or((None, None), |found| (found.traces, found.metrics));
    assert_eq!(
        (url(found_traces).as_str(), url(found_metrics).as_str()),
        (traces, metrics),
        "{flag:?} {env:?}"
    );
}

const GENERAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1");
const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

#[test]
fn endpoint_by_flag_then_signal_then_general() {
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:2");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:3");
    check(None, &[], "", "");
    check(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], "", "");
    check(None, &[GENERAL], "http://a:1/", "http://a:1/");
    check(None, &[GENERAL, metrics], "http://a:1/", "http://m:3/");
    // The specification's default for the signal that nothing is said of.
    check(None, &[traces], "http://t:2/", "http://localhost:4317/");
    check(None, &[metrics, HTTP], "http://localhost:4318/v1/traces", "http://m:3/");
    check(
        Some("http://c:3"),
        &[GENERAL, traces, metrics],
        "http://c:3/",
        "http://c:3/",
    );
}

#[test]
fn a_signal_is_switched_off_by_its_exporter() {
    check(None, &[GENERAL, ("OTEL_METRICS_EXPORTER", "none")], "http://a:1/", "");
    check(
        Some("http://c:3"),
        &[("OTEL_TRACES_EXPORTER", "none")],
        "",
        "http://c:3/",
    );
    check(
        Some("http://c:3"),
        &[("OTEL_TRACES_EXPORTER", "otlp")],
        "http://c:3/",
        "http://c:3/",
    );
}

#[test]
fn over_http_a_base_gets_the_signals_path() {
    check(None, &[GENERAL, HTTP], "http://a:1/v1/traces", "http://a:1/v1/metrics");
    check(
        Some("http://c:3/x/"),
        &[HTTP],
        "http://c:3/x/v1/traces",
        "http://c:3/x/v1/metrics",
    );
    let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:3/p");
    check(None, &[GENERAL, HTTP, own], "http://a:1/v1/traces", "http://m:3/p");
    let one = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf");
    check(None, &[GENERAL, one], "http://a:1/", "http://a:1/v1/metrics");
}

#[test]
fn without_a_scheme_insecure_decides() {
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317");
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "True");
    check(None, &[bare], "https://c:4317/", "https://c:4317/");
    check(None, &[bare, insecure], "http://c:4317/", "http://c:4317/");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false");
    check(None, &[bare, insecure, own], "https://c:4317/", "http://c:4317/");
}

#[test]
fn headers_timeout_and_compression_are_taken() {
    let env = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x, b=2"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let found = load(Some("http://c:3"), &env).unwrap().unwrap().traces.unwrap();
    assert_eq!(found.headers["authorization"], "Bearer x");
    assert_eq!((found.headers["b"].to_str().unwrap(), found.headers.len()), ("2", 2));
    assert_eq!((found.timeout, found.gzip), (Duration::from_millis(250), true));
}

#[test]
fn what_is_wrong_is_named() {
    let check = |flag, env: &[(&str, &str)], expected: &str| {
        let error = load(flag, env).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        error
    };
    check(Some("localhost:4317"), &[], "--otlp localhost:4317");
    check(Some("ftp://x"), &[], "not an http://");
    for (name, value, reason) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "use grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "use gzip or none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem", "No such file"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/hostname", "set both"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "use otlp or none"),
    ] {
        let error = check(Some("http://x"), &[(name, value)], reason);
        assert!(error.contains(&format!("{name}={value}")), "{error}");
    }
    let secret = [("OTEL_EXPORTER_OTLP_HEADERS", "k=1,s3cret")];
    let error = check(Some("http://x"), &secret, "OTEL_EXPORTER_OTLP_HEADERS: pair 2 has no =");
    assert!(!error.contains("s3cret"), "{error}");
}
