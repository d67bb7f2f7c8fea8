//! OTLP read back by something not ours: an OpenTelemetry Collector, whose output is compared with the JSON lines.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Agent, Output, attribute, demo, list, load, number_of, privileged, shop, stock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Generous: the tests' machines are shared and small.
const SOON: Duration = Duration::from_secs(60);

/// A Collector that takes OTLP over gRPC and HTTP and writes what it understood into files.
struct Collector {
    child: Child,
    directory: tempfile::TempDir,
}

impl Collector {
    fn start(grpc: u16, http: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |port: u16| json!({"endpoint": format!("127.0.0.1:{port}")});
        let config = json!({
            "receivers": {"otlp": {"protocols": {"grpc": at(grpc), "http": at(http)}}},
            "exporters": {
                "file/traces": {"path": directory.path().join("traces.json")},
                "file/metrics": {"path": directory.path().join("metrics.json")},
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["file/traces"]},
                    "metrics": {"receivers": ["otlp"], "exporters": ["file/metrics"]},
                },
            },
        });
        // YAML holds JSON.
        let path = directory.path().join("config.yaml");
        fs::write(&path, config.to_string()).unwrap();
        let child = Command::new(demo("otelcol"))
            .arg("--config")
            .arg(path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let collector = Self { child, directory };
        wait("the collector", || {
            [grpc, http]
                .iter()
                .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
        collector
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends it, which writes what it holds; its requests: traces and metrics.
    fn stop(mut self) -> (Vec<Value>, Vec<Value>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let read = |name: &str| {
            let text = fs::read_to_string(self.file(name)).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        (read("traces.json"), read("metrics.json"))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What two writers of OTLP's JSON may write in two ways made one: fields of their default value, which may be left out,
/// 64-bit numbers, which may be strings, and whole floating point numbers.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), normal(value)))
            .filter(|(key, value)| {
                // A value that is told is told, also when it is 0.
                key.ends_with("Value") || !is_default(value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::String(text) => text.parse::<i64>().map_or_else(|_| value.clone(), Value::from),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 => Value::from(float as i64),
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Every span by its ids, with its resource and scope.
fn spans(requests: &[Value]) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for resource in requests.iter().flat_map(|request| list(&request["resourceSpans"])) {
        for scope in list(&resource["scopeSpans"]) {
            for span in list(&scope["spans"]) {
                let key = format!("{} {}", span["traceId"], span["spanId"]);
                let whole = json!([resource["resource"], scope["scope"], span]);
                assert!(found.insert(key.clone(), normal(&whole)).is_none(), "{key} came twice");
            }
        }
    }
    found
}

/// Every point by its resource, metric, attributes and time.
fn points(requests: &[Value]) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for resource in requests.iter().flat_map(|request| list(&request["resourceMetrics"])) {
        for scope in list(&resource["scopeMetrics"]) {
            for metric in list(&scope["metrics"]) {
                let mut bare = metric.clone();
                let mut points = Vec::new();
                for data in bare.as_object_mut().unwrap().values_mut() {
                    if let Some(taken) = data.get_mut("dataPoints") {
                        points.extend(list(&taken.take()).cloned());
                    }
                }
                for point in points {
                    let key = normal(&json!([
                        attribute(&resource["resource"], "service.instance.id"),
                        metric["name"],
                        list(&point["attributes"]).collect::<Vec<_>>(),
                        point["timeUnixNano"]
                    ]));
                    let whole = normal(&json!([resource["resource"], scope["scope"], bare, point]));
                    assert!(found.insert(key.to_string(), whole).is_none(), "{key} came twice");
                }
            }
        }
    }
    found
}

/// Compares item by item, so that a difference is told by its item.
fn same(what: &str, theirs: &BTreeMap<String, Value>, ours: &BTreeMap<String, Value>) {
    for (key, ours) in ours {
        let theirs = theirs
            .get(key)
            .unwrap_or_else(|| panic!("{what} {key} is not in the collector's output"));
        assert_eq!(theirs, ours, "{what} {key}");
    }
    assert_eq!(theirs.len(), ours.len(), "{what}: the collector has more");
    eprintln!("{} {what} are the same, field by field", ours.len());
}

/// A count of the closing summary: "… 12 exported, 3 dropped …".
fn closing(output: &Output, word: &str) -> usize {
    let line = output
        .said
        .lines()
        .find(|line| line.starts_with("whywait ran "))
        .unwrap();
    let before = line.split(&format!(" {word}")).next().unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A count of the agent's own account, by cause where there are several.
fn account(output: &Output, metric: &str) -> i64 {
    let points = output.points("whywait", metric);
    points.iter().map(|point| number_of(&point["asInt"])).sum()
}

#[test]
fn a_collector_understands_every_span_and_point() {
    if !privileged() {
        return;
    }
    let port = free_port();
    let collector = Collector::start(port, free_port());
    let stock = stock(false);
    let shop = shop(
        Some(&stock),
        &[("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")],
    );
    let url = format!("http://127.0.0.1:{port}");
    let (shop_pid, stock_pid) = (shop.pid().to_string(), stock.pid().to_string());
    let args = [
        "--pid",
        &shop_pid,
        "--pid",
        &stock_pid,
        "--otlp",
        &url,
        "--metric-interval",
        "2s",
        // Many spans.
        "--slow-wait",
        "100us",
        "--slow-request",
        "500us",
    ];
    let agent = Agent::run(&args, 2);
    load(&[shop.url("/item?id={n}")], 100, 5, 4);
    for _ in 0..3 {
        shop.get("/gc");
        shop.get("/slow-lock?ms=20");
        stock.get("/block?ms=25");
    }
    let output = agent.stop();
    assert!(output.status.success(), "{}", output.said);
    let (traces, metrics) = collector.stop();

    let (our_spans, our_points) = (spans(&output.traces), points(&output.metrics));
    assert!(our_spans.len() > 20, "only {} spans", our_spans.len());
    same("spans", &spans(&traces), &our_spans);
    same("points", &points(&metrics), &our_points);
    assert!(output.metrics.len() > 6, "several exports, the last among them");
    assert_eq!(
        closing(&output, "exported"),
        2 * (our_spans.len() + our_points.len()),
        "the files and the collector"
    );
    assert_eq!(closing(&output, "dropped"), 0, "{}", output.said);

    // The begin of a series does not move, or receivers would see a restart with each export.
    let mut begins: BTreeMap<String, Value> = BTreeMap::new();
    for whole in our_points.values() {
        let series = json!([whole[0], whole[2]["name"], whole[3]["attributes"]]).to_string();
        let begin = &whole[3]["startTimeUnixNano"];
        assert_eq!(
            begins.entry(series.clone()).or_insert_with(|| begin.clone()),
            begin,
            "{series}"
        );
    }
}

#[test]
fn a_collector_that_comes_up_late_gets_everything() {
    if !privileged() {
        return;
    }
    let (grpc, http) = (free_port(), free_port());
    let stock = stock(false);
    let url = format!("http://127.0.0.1:{grpc}");
    let metrics_url = format!("http://127.0.0.1:{http}/v1/metrics");
    let pid = stock.pid().to_string();
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", metrics_url.as_str()),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=test"),
    ];
    let agent = Agent::spawn(&["--pid", &pid, "--metric-interval", "1s"], &env);
    // While nobody takes the data, the files get theirs at their pace.
    let file = agent.out.path().join("metrics.jsonl");
    let lines = || fs::read_to_string(&file).unwrap_or_default().lines().count();
    wait("a first export", || lines() >= 2);
    let sent = load(&[stock.url("/stock/{n}")], 50, 2, 2);
    for _ in 0..5 {
        stock.get("/block?ms=25");
    }
    wait("further exports", || lines() >= 8);

    let collector = Collector::start(grpc, http);
    let taken = collector.file("metrics.json");
    wait("what the collector takes", || {
        fs::metadata(&taken).is_ok_and(|meta| meta.len() > 0)
    });
    // Until the agent says of itself that it was taken.
    let before = lines();
    wait("another export", || lines() >= before + 4);
    let output = agent.stop();
    assert!(output.status.success(), "{}", output.said);
    let (traces, metrics) = collector.stop();
    for said in [
        "does not accept traces",
        "does not accept metrics",
        "accepts traces again",
        "accepts metrics again",
    ] {
        assert_eq!(output.said.matches(said).count(), 1, "{said}: {}", output.said);
    }
    let (our_spans, our_points) = (spans(&output.traces), points(&output.metrics));
    assert_eq!(closing(&output, "dropped"), 0, "{}", output.said);
    assert!(our_spans.len() >= 5, "{}", output.said);
    same("spans", &spans(&traces), &our_spans);
    same("points", &points(&metrics), &our_points);
    let exported = closing(&output, "exported");
    assert_eq!(exported, 2 * (our_spans.len() + our_points.len()));
    // The last account left before itself was delivered.
    let told = account(&output, "whywait.export.sent");
    assert!(told > 0 && (told as usize) < exported, "{told} of {exported}");
    assert_eq!(account(&output, "whywait.export.dropped"), 0);
    let served: i64 = output
        .points("rust-stock", "whywait.server.request.duration")
        .iter()
        .map(|point| number_of(&point["count"]))
        .sum();
    assert_eq!(
        served,
        5 + number_of(&sent["count"]),
        "no request was missed while the endpoint was down"
    );
}
