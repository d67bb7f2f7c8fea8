//! `whywait profile` of a program that takes CPU time in known shares, against the kernel's account of it.

#[path = "common/go_build.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_build;
#[path = "common/go_profile.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_profile;

mod common;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{demo, list, run_queue};
use go_build::{build, go};
use go_profile::{Running, raw};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Samples a second of each core; many, as the test is short.
const RATE: &str = "499";

/// The number before a word.
fn before(text: &str, word: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words
        .windows(2)
        .find(|pair| pair[1].trim_end_matches([';', ',']) == word);
    let number = at.and_then(|pair| pair[0].parse().ok());
    number.unwrap_or_else(|| panic!("no number before {word}: {text}"))
}

/// What `go tool pprof -top` makes of one value of a profile, in seconds, by function: its own, and with what it calls.
fn top(profile: &Path, value: &str) -> Vec<(String, f64, f64)> {
    let output = go("local")
        .args([
            "tool",
            "pprof",
            "-top",
            "-nodefraction=0",
            "-unit=seconds",
            "-nodecount=1000",
        ])
        .arg(format!("-sample_index={value}"))
        .arg(profile)
        .output()
        .expect("pprof");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [flat, _, _, all, _, function @ ..] = &words[..] else {
            return None;
        };
        let seconds = |text: &str| text.trim_end_matches('s').parse::<f64>().ok();
        Some((function.join(" "), seconds(flat)?, seconds(all)?))
    });
    lines.collect()
}

fn of(top: &[(String, f64, f64)], function: &str) -> (f64, f64) {
    let found = top.iter().find(|(name, ..)| name == function);
    found.map_or((0.0, 0.0), |(_, flat, all)| (*flat, *all))
}

/// The part of its wall time for which looks saw a function's goroutines running, with its standard error, from the printed table.
fn running_part(text: &str, function: &str) -> (f64, f64) {
    let mut all = 0.0;
    let mut running = (0.0, 0.0);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [share, "%", error, "%", _, state, .., name] = &words[..] else {
            continue;
        };
        let [share, error] = [share, error].map(|text| text.parse::<f64>().expect("a number"));
        if *name == function {
            all += share;
            if *state == "running" {
                running = (share, error);
            }
        }
    }
    (running.0 / all, running.1 / all)
}

#[test]
fn cpu_time_is_the_kernels_and_goes_where_it_was_spent() {
    let toolchains = std::env::var("WHYWAIT_TEST_TOOLCHAINS");
    let toolchains = toolchains.unwrap_or_else(|_| "go1.18.10 local".to_owned());
    for toolchain in toolchains.split_whitespace() {
        let path = build(&format!("on-cpu-{toolchain}"), toolchain, &[], &[("CGO_ENABLED", "0")]);
        let running = Running::start(&path, &[]);
        let out = path.with_file_name("cpu.pb.gz");
        let file = out.display().to_string();
        let (waited, _) = run_queue(running.child.id());
        let output = running.whywait(&[
            "profile",
            "--seconds",
            "6",
            "--rate",
            "300",
            "--limit-cpu",
            "20%",
            "--cpu-rate",
            RATE,
            "--out",
            &file,
        ]);
        let waited = (run_queue(running.child.id()).0 - waited) / 6.0;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{text}");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = text
            .lines()
            .find(|line| line.starts_with("on CPU: "))
            .expect("a line of it");
        let samples = before(line, "samples");
        let (sampled, account) = line.split_once("by the kernel's account").expect("the account");
        let (sampled, account) = (before(sampled, "s"), before(account, "s"));
        // The standard error of a count is less than its square root; ticks of the account are 10 ms.
        let error = 4.0 * samples.sqrt() / samples;
        assert!(samples > 300.0, "{line}");
        assert!((sampled / account - 1.0).abs() < error + 0.02 / account, "{line}");

        let top_cpu = top(&out, "cpu");
        println!("{top_cpu:#?}");
        let [(heavy, _), (light, _)] = ["main.heavy", "main.light"].map(|function| of(&top_cpu, function));
        let error = 4.0 * (0.3f64 * 0.7 / (samples * (heavy + light) / sampled)).sqrt();
        assert!(
            (heavy / (heavy + light) - 0.7).abs() < error,
            "{heavy} {light} ± {error}"
        );
        // The kernel's work is in the stacks of who asked for it.
        let kernel: f64 = top_cpu
            .iter()
            .filter(|(name, ..)| name.starts_with("[kernel]"))
            .map(|(_, flat, _)| flat)
            .sum();
        let (own, reads) = of(&top_cpu, "main.reads");
        assert!(
            kernel > 0.0 && reads - own > 0.5 * kernel.min(reads),
            "{kernel} {reads}"
        );
        // On CPU or not, there is one such goroutine all the time. Looks may begin a period later, and end one earlier.
        let (_, wall) = of(&top(&out, "wall"), "main.burn");
        let between = 3.0 / before(&text, "looks").max(1.0);
        assert!(
            (wall / 6.0 - 1.0).abs() < between + 0.01,
            "wall time of main.burn: {wall} s of 6 s"
        );
        // What looks saw running is what it had of a CPU, and at most what its thread waited for one besides.
        let (running, error_of_looks) = running_part(&text, "main.burn");
        let (_, burnt) = of(&top_cpu, "main.burn");
        let had = burnt / wall;
        let rate = RATE.parse::<f64>().expect("a number");
        let error_of_samples = (had * (1.0 - had) / (rate * wall)).sqrt();
        let error = 4.0 * error_of_looks.hypot(error_of_samples);
        let figures = format!(
            "main.burn in {toolchain}: looks see it running for {running:.4} ± {error_of_looks:.4} of its wall time, and it was on CPU for \
             {had:.4} ± {error_of_samples:.4}; its threads waited {waited:.4} of it for a CPU"
        );
        println!("{figures}");
        assert!(!text.contains("the kernel refused it"), "{text}");
        // On a machine that is slow enough, looks take too long for it.
        let are_late = text.contains("not made at real-time priority");
        assert!(
            are_late || running > had - error,
            "less than four standard errors: {figures}"
        );
        assert!(
            running < had + waited + error,
            "more than four standard errors: {figures}"
        );
        assert!((of(&top_cpu, "main.waits").1) == 0.0);

        // Each stack has the callers of functions that have no frame, unless a signal made them call asyncPreempt.
        let stacks = raw(&out);
        let mut seen = 0;
        for stack in stacks
            .keys()
            .filter(|stack| stack.iter().any(|name| name == "main.heavy"))
            .filter(|stack| stack.iter().all(|name| name != "runtime.asyncPreempt"))
        {
            let at = stack.iter().position(|name| name == "main.heavy").expect("there");
            assert_eq!(stack.get(at + 1).map(String::as_str), Some("main.burn"), "{stack:?}");
            seen += 1;
        }
        assert!(seen > 0, "{stacks:?}");
        let svg = std::fs::read_to_string(out.with_extension("").with_extension("svg")).expect("a picture");
        assert!(svg.contains("<title>main.heavy (") && svg.contains("<title>[on CPU] ("));
    }
}

#[test]
fn without_the_kernels_permission_waits_are_told_all_the_same() {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").expect("it is there");
    if paranoid.trim().parse::<i32>().expect("a number") < 1 {
        return println!("SKIPPED: this kernel lets everybody sample");
    }
    let path = build("on-cpu-refused", "local", &[], &[("CGO_ENABLED", "0")]);
    let running = Running::start(&path, &[]);
    let out = path.with_file_name("refused.pb.gz");
    let output = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-perfmon,-sys_admin,-sys_nice",
            env!("CARGO_BIN_EXE_whywait"),
        ])
        .args([
            "profile",
            "--seconds",
            "2",
            "--pid",
            &running.child.id().to_string(),
            "--out",
        ])
        .arg(&out)
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("no samples of code on CPU") && text.contains("perf_event_paranoid is"),
        "{text}"
    );
    assert!(text.contains("with the capability SYS_NICE"), "{text}");
    assert!(of(&top(&out, "wall"), "main.waits").1 > 0.0, "{text}");
    let stacks = raw(&out);
    assert!(
        stacks.keys().any(|stack| stack.contains(&"main.burn".to_owned())),
        "{stacks:?}"
    );
}

/// A Collector's reading of what `--otlp` sends: OTLP profiles, an experimental signal.
#[test]
fn a_collector_reads_the_profile() {
    let path = build("on-cpu-otlp", "local", &[], &[("CGO_ENABLED", "0")]);
    let running = Running::start(&path, &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let port = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let [grpc, http] = [(); 2].map(|()| port().expect("a port").to_string());
    let config = json!({
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
        "exporters": {"file": {"path": directory.path().join("profiles.json")}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            "pipelines": {"profiles": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    });
    // YAML holds JSON.
    fs::write(directory.path().join("config.yaml"), config.to_string()).expect("written");
    let mut collector = Command::new(demo("otelcol"))
        .args(["--feature-gates=service.profilesSupport", "--config"])
        .arg(directory.path().join("config.yaml"))
        .stdout(Stdio::null())
        .spawn()
        .expect("a collector");
    let deadline = Instant::now() + Duration::from_secs(60);
    while [&grpc, &http]
        .iter()
        .any(|address| TcpStream::connect(address).is_err())
    {
        assert!(Instant::now() < deadline, "no collector");
        thread::sleep(Duration::from_millis(100));
    }
    let out = directory.path().join("otlp.pb.gz").display().to_string();
    for (protocol, address) in [("grpc", &grpc), ("http/protobuf", &http)] {
        let output = Command::new(env!("CARGO_BIN_EXE_whywait"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .args(["profile", "--seconds", "2", "--cpu-rate", RATE, "--out", &out])
            .args([
                "--pid",
                &running.child.id().to_string(),
                "--otlp",
                &format!("http://{address}"),
            ])
            .output()
            .expect("whywait");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    kill_process(Pid::from_child(&collector), Signal::TERM).expect("it runs");
    assert!(collector.wait().expect("it ends").success());
    let text = fs::read_to_string(directory.path().join("profiles.json")).expect("what it read");
    let requests: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(requests.len(), 2, "{text}");
    for request in requests {
        let resource = &request["resourceProfiles"][0];
        // The Collector puts their names into the dictionary.
        let texts = &request["dictionary"]["stringTable"];
        let attributes: Vec<&str> = list(&resource["resource"]["attributes"])
            .filter_map(|at| texts[at["keyStrindex"].as_u64()? as usize].as_str())
            .collect();
        assert!(
            attributes.contains(&"service.name") && attributes.contains(&"process.pid"),
            "{request}"
        );
        assert_eq!(list(&resource["scopeProfiles"][0]["profiles"]).count(), 2, "{resource}");
        let texts: Vec<&str> = list(&request["dictionary"]["stringTable"])
            .filter_map(Value::as_str)
            .collect();
        for text in ["wall", "cpu", "main.heavy", "main.waits", "go.goroutine.wait_reason"] {
            assert!(texts.contains(&text), "{text} is not in {texts:?}");
        }
    }
}
