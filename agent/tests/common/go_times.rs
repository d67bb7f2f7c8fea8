//! Where goroutines' time went, by state or wait reason: as the agent says, and as the execution trace does.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    common::number_of,
    go_life::{Said, text},
};

/// Our name of a wait reason, and the trace's where it is another (go1.26, runtime/traceruntime.go, traceBlockReason). Before go1.21
/// a mutex' wait was a semaphore's, as some of the runtime's own are in all versions.
const REASONS: [(&str, &str); 4] = [
    ("sync.Mutex.Lock", "sync"),
    ("semacquire", "sync"),
    ("sync.Cond.Wait", "sync.(*Cond).Wait"),
    ("IO wait", "network"),
];

/// Time by state, or the trace's wait reason, ns.
pub type Sums = BTreeMap<String, i64>;

pub fn our_sums(said: &Said, function: &str) -> Sums {
    let mut sums = Sums::new();
    for point in said.points_of("go.goroutine.time", &[("go.goroutine.function", function)]) {
        let state = match text(&point, "go.goroutine.state").as_str() {
            "waiting" => traced(&text(&point, "go.goroutine.wait_reason")).to_owned(),
            state => state.to_owned(),
        };
        *sums.entry(state).or_default() += number_of(&point["asInt"]);
    }
    sums
}

pub fn their_sums(said: &Said, function: &str) -> Sums {
    let of_trace = &said.trace["functions"][function];
    let mut theirs = sums(&of_trace["states"]);
    theirs.remove("waiting");
    theirs.extend(sums(&of_trace["waits"]));
    theirs
}

pub fn add(to: &mut Sums, more: &Sums) {
    for (state, time) in more {
        *to.entry(state.clone()).or_default() += time;
    }
}

/// The largest difference of a state, as a part of the whole time by the trace.
pub fn difference(ours: &Sums, theirs: &Sums) -> f64 {
    let whole: i64 = theirs.values().sum();
    let of = |sums: &Sums, state: &String| sums.get(state).copied().unwrap_or(0);
    let states = ours.keys().chain(theirs.keys());
    let largest = states.map(|state| (of(ours, state) - of(theirs, state)).abs()).max();
    largest.unwrap_or(0) as f64 / whole.max(1) as f64
}

pub fn traced(reason: &str) -> &str {
    let found = REASONS.iter().find(|(ours, _)| *ours == reason);
    found.map_or(reason, |(_, theirs)| theirs)
}

/// Names and `sum_ns` of tracestat's stretches.
fn sums(stretches: &Value) -> Sums {
    let all = stretches.as_object().into_iter().flatten();
    all.map(|(name, stretch)| (name.clone(), number_of(&stretch["sum_ns"])))
        .collect()
}
