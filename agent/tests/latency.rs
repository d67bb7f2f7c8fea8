//! The runtime's own sample of scheduling latency, on goroutines that take turns: how long they were runnable is known.

mod common;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "common/go_build.rs"]
mod go_build;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use common::{Agent, Output, attribute, number_of, privileged};
use go_build::build;
use serde_json::Value;

/// Goroutines that take turns (fixtures/go_turns.go.txt), and how many starts one in the sample stands for.
const SPINNERS: i64 = 4;
const PERIOD: i64 = 8;
const SERVICE: &str = "turns";

/// Runs the program beside an agent; what came of it, and for how long they took turns, ns.
fn watched(args: &[&str]) -> (Output, i64) {
    let program = build("turns", "local", &[], &[("CGO_ENABLED", "0")]);
    let mut child = Command::new(program)
        .arg("4s")
        .env("OTEL_SERVICE_NAME", SERVICE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let pid = child.id().to_string();
    let agent = Agent::run(
        &[&["--pid", &pid, "--metric-interval", "1s", "--slow-wait", "5ms"], args].concat(),
        1,
    );
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let took = lines.next().unwrap().parse().unwrap();
    let output = agent.stop();
    child.kill().unwrap();
    child.wait().unwrap();
    (output, took)
}

fn of_spin(points: Vec<Value>) -> Vec<Value> {
    let is_spin = |point: &Value| attribute(point, "go.goroutine.function") == Some(Value::from("main.spin"));
    points.into_iter().filter(is_spin).collect()
}

fn spans(output: &Output) -> Vec<Value> {
    let mut spans = output.spans(SERVICE);
    spans.retain(|span| span["name"] == "runnable main.spin");
    spans
}

fn is_sampled(span: &Value) -> bool {
    attribute(span, "go.goroutine.sample.period") == Some(Value::from(PERIOD))
}

#[test]
fn one_start_in_eight_stands_for_all() {
    if !privileged() {
        return;
    }
    let (output, took) = watched(&["--without", "go.sched"]);
    let points = of_spin(output.points(SERVICE, "go.goroutine.latency.duration"));
    let [point] = points.as_slice() else {
        panic!("{points:?}\n{}", output.said);
    };
    assert!(is_sampled(point), "{point}");
    let (count, sum) = (number_of(&point["count"]), point["sum"].as_f64().unwrap());
    // All but one are runnable at each moment.
    let runnable = (SPINNERS - 1) as f64 * took as f64 / 1e9;
    println!("{count} starts of main.spin, runnable for {sum:.2} s, not {runnable:.2} s");
    assert!((sum / runnable - 1.0).abs() < 0.2, "{sum} s, not {runnable} s");
    // A turn is over after 10 ms (runtime/proc.go, forcePreemptNS), or when sysmon looks after that: 20 ms are common.
    let turns = took / 10_000_000;
    assert!(
        (turns / 3..=turns + turns / 4).contains(&count),
        "{count} starts, {turns} turns"
    );
    let spans = spans(&output);
    assert!(!spans.is_empty() && spans.iter().all(is_sampled), "{}", spans.len());
    // Each of the sample that was runnable for longer is one.
    assert!(
        (spans.len() as i64 - count / PERIOD).abs() <= 3,
        "{} spans",
        spans.len()
    );
    for span in spans {
        let length = number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"]);
        assert!((5_000_000..took).contains(&length), "{span}");
        assert!(number_of(&attribute(&span, "go.goroutine.id").unwrap()) > 1, "{span}");
        let creator = attribute(&span, "go.goroutine.creator.function");
        assert_eq!(creator, Some(Value::from("main.main")), "{span}");
    }
    let is_row = |line: &str| line.contains("goroutine runnable → running");
    assert!(output.said.lines().any(is_row), "{}", output.said);
}

/// go.sched follows all of them: none is reported twice.
#[test]
fn a_wait_that_every_switch_shows_is_one_span() {
    if !privileged() {
        return;
    }
    let (output, took) = watched(&[]);
    let spans = spans(&output);
    let (sampled, all): (Vec<Value>, Vec<Value>) = spans.into_iter().partition(is_sampled);
    println!("{} of the sample, {} of go.sched", sampled.len(), all.len());
    assert!(all.len() as i64 > took / 10_000_000 / 3, "{} spans", all.len());
    assert!(sampled.is_empty(), "{sampled:?}");
    let sampled = of_spin(output.points(SERVICE, "go.goroutine.latency.duration"));
    assert_eq!(sampled.len(), 1, "the sample is counted all the same");
}
