//! Goroutines of a Go plugin, and of a thread that C made: they begin far from the executable, or with no function at all. They are called
//! as the runtime calls them, or `unknown`, the same wherever they are told of.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use common::{Agent, Service, privileged};
use serde_json::Value;

const HOST: &str = include_str!("fixtures/go_plugin_host.go.txt");
const PLUGIN: &str = include_str!("fixtures/go_plugin.go.txt");

/// Builds the host, and its plugin beside it.
fn built() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    fs::create_dir_all(folder.join("plugin")).unwrap();
    fs::write(folder.join("go.mod"), "module example.org/host\ngo 1.22\n").unwrap();
    fs::write(folder.join("main.go"), HOST).unwrap();
    fs::write(folder.join("plugin/main.go"), PLUGIN).unwrap();
    for args in [
        ["-buildmode=exe", "host", "."],
        ["-buildmode=plugin", "plugin.so", "./plugin"],
    ] {
        let [mode, output, package] = args;
        let mut go = Command::new("go");
        go.current_dir(&folder).env("CGO_ENABLED", "1");
        let status = go.args(["build", mode, "-o", output, package]).status();
        assert!(status.is_ok_and(|status| status.success()), "{output}");
    }
    folder
}

/// By what tells of them, the functions that goroutines were started with.
type Functions = BTreeMap<String, BTreeSet<String>>;

/// Takes what stands in a metric or a span, at any depth.
fn take(found: &mut Functions, within: &str, value: &Value) {
    match value {
        Value::Array(all) => all.iter().for_each(|value| take(found, within, value)),
        Value::Object(fields) => {
            if fields.get("key") == Some(&Value::from("go.goroutine.function")) {
                let function = fields["value"]["stringValue"].as_str().unwrap();
                found.entry(within.to_owned()).or_default().insert(function.to_owned());
            }
            let named = fields.get("name").and_then(Value::as_str).unwrap_or(within);
            // A span is called by its function too.
            let kind = named.split(' ').next().unwrap();
            fields.values().for_each(|value| take(found, kind, value));
        }
        _ => {}
    }
}

#[test]
fn a_goroutine_of_a_plugin_is_not_called_by_a_function_of_the_executable() {
    if !privileged() {
        return;
    }
    let folder = built();
    let plugin = folder.join("plugin.so");
    let mut host = Command::new(folder.join("host"));
    let host = Service::of(host.arg(&plugin).env("OTEL_SERVICE_NAME", "host"));
    let mut said = host.address.split(' ').map(str::to_owned);
    let (plugins, mistaken) = (said.next().unwrap(), said.next().unwrap());
    // As the runtime's traceback has them.
    let started: BTreeSet<String> = said.collect();
    assert!(
        started.contains(&plugins) && !started.contains(&mistaken),
        "{started:?}"
    );
    let pid = host.pid().to_string();
    let args = ["--pid", &pid, "--slow-wait", "10us", "--with", "thread.syscall"];
    let agent = Agent::run(&[&args[..], &["--metric-interval", "1s"]].concat(), 1);
    thread::sleep(Duration::from_millis(3500));
    let output = agent.stop();
    let mut found = Functions::new();
    for line in output.metrics.iter().chain(&output.traces) {
        take(&mut found, "", line);
    }
    // Each tells of the plugin's.
    for of in [
        "go.goroutine.time",
        "go.goroutine.alive",
        "go.goroutine.syscall.time",
        "go.gc.assist.time",
        "runnable",
    ] {
        let functions = found.get(of).unwrap_or_else(|| panic!("nothing of {of}: {found:?}"));
        assert!(functions.contains("unknown"), "{of}: {functions:?}");
    }
    for (of, functions) in &found {
        let wrong = functions.iter().find(|function| {
            let is_known = started.contains(*function) || function.starts_with("runtime.");
            !is_known && *function != "unknown"
        });
        assert_eq!(wrong, None, "{of}: {found:?}");
    }
    assert!(found["go.goroutine.time"].contains("main.own"), "{found:?}");
}
