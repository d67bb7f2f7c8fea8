//! What is read of a Go process' memory, against what it says itself.

use serde_json::Value;

use super::Findings;
use crate::{
    common::{attribute, number_of},
    go_life::Said,
};

/// What is read of memory, against runtime/metrics: read inside a moment before.
pub fn runtime(said: &Said, findings: &mut Findings) {
    /// Goroutines that start between the program's reading and ours.
    const MOMENT: i64 = 32;
    let latencies = said.sum("go.schedule.duration", &[]);
    let told = said.told("all_sampled");
    findings.hold((told..=told + MOMENT).contains(&latencies), || {
        format!("scheduling latencies: {latencies}, not {told}")
    });
    let goroutines = said.told("goroutines");
    findings.same("goroutines", said.sum("go.goroutine.count", &[]), goroutines);
    let created = said.points("go.goroutine.created");
    findings.same(
        "counts what was created",
        i64::from(!created.is_empty()),
        i64::from(said.minor >= 26),
    );
    findings.same(
        "the program counts it too",
        i64::from(said.told("created") >= 0),
        i64::from(said.minor >= 26),
    );
    for point in created {
        let (ours, told) = (number_of(&point["asInt"]), said.told("created"));
        findings.hold((told..=told + MOMENT).contains(&ours), || {
            format!("created: {ours}, not {told}")
        });
    }
}

/// A look at every goroutine, against runtime.NumGoroutine, and against what the program started and let be.
pub fn goroutines(said: &Said, findings: &mut Findings) {
    let users: i64 = said
        .points("go.goroutine.alive")
        .iter()
        .filter(|point| attribute(point, "go.goroutine.system") != Some(Value::from(true)))
        .map(|point| number_of(&point["asInt"]))
        .sum();
    findings.same("alive", users, said.told("goroutines"));
    let idlers = [
        ("go.goroutine.function", "main.idle"),
        ("go.goroutine.creator.function", "main.main"),
        ("go.goroutine.wait_reason", "chan receive"),
    ];
    findings.same("idlers", said.sum("go.goroutine.alive", &idlers), said.told("idlers"));
}

/// Calls into C, against runtime.NumCgoCall; and goroutines that are in one, against those that the program made stay there.
pub fn in_c(said: &Said, findings: &mut Findings) {
    let calls = said.points("go.cgo.calls");
    let calls: Vec<i64> = calls.iter().map(|point| number_of(&point["asInt"])).collect();
    let told = said.told("c_calls");
    let expected = if told > 0 { vec![told] } else { Vec::new() };
    findings.of("go.runtime").hold(calls == expected, || {
        format!("calls into C: {calls:?}, not {expected:?}")
    });
    let staying = [("go.goroutine.function", "main.stay"), ("go.goroutine.state", "cgo")];
    findings
        .of("go.goroutines")
        .same("in C", said.sum("go.goroutine.alive", &staying), said.told("in_c"));
    let all = [("go.goroutine.state", "cgo")];
    findings.same("in C, of all", said.sum("go.goroutine.alive", &all), said.told("in_c"));
}
