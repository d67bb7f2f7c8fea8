//! Wall time of goroutines from looks at some of them, against the execution trace of the same seconds.

use std::collections::BTreeMap;

use super::{
    Findings,
    go_times::{their_sums, traced},
};
use crate::{
    common::is_slow,
    go_life::{Said, text},
};

/// Functions whose goroutines do the same all the time that they live.
const MIXED: [&str; 5] = [
    "main.mixSleep",
    "main.mixReceive",
    "main.mixSelect",
    "main.mixLock",
    "main.mixSpin",
];

/// Shares of the wall time of these, by function and what its goroutines do, as the trace calls it.
type Shares = BTreeMap<(&'static str, String), f64>;

/// Each share is within 2 points of the trace's, each function's own within 5, and so says its standard error.
pub fn wall_times(said: &Said, findings: &mut Findings) {
    let (most, most_of_one) = if is_slow() { (0.06, 0.15) } else { (0.02, 0.05) };
    let (mut ours, mut theirs, mut variances) = (Shares::new(), Shares::new(), Shares::new());
    for function in MIXED {
        for (metric, sums) in [
            ("go.goroutine.wall.time", &mut ours),
            ("go.goroutine.wall.variance", &mut variances),
        ] {
            for point in said.points_of(metric, &[("go.goroutine.function", function)]) {
                let does = match text(&point, "go.goroutine.state").as_str() {
                    "waiting" => traced(&text(&point, "go.goroutine.wait_reason")).to_owned(),
                    // A system call is running, for the trace as for others.
                    "syscall" | "cgo" => "running".to_owned(),
                    state => state.to_owned(),
                };
                let value = point["asDouble"].as_f64().expect("a number");
                *sums.entry((function, does)).or_default() += value;
            }
        }
        let of_trace = their_sums(said, function).into_iter();
        theirs.extend(of_trace.map(|(does, ns)| ((function, does), ns as f64 / 1e9)));
    }
    let looks = said.sum("go.goroutine.wall.looks", &[]);
    let (our_time, their_time) = (ours.values().sum::<f64>(), theirs.values().sum::<f64>());
    println!("wall time: {our_time:.3} s in {looks} looks, by the trace {their_time:.3} s");
    findings.hold(our_time > 0.0 && their_time > 0.0, || {
        format!("{our_time} s, by the trace {their_time} s")
    });
    let mut keys: Vec<_> = ours.keys().chain(theirs.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let (function, does) = key;
        let of = |shares: &Shares| shares.get(key).copied().unwrap_or(0.0);
        let whole = |shares: &Shares| -> f64 {
            let of_function = shares.iter().filter(|((other, _), _)| other == function);
            of_function.map(|(_, time)| time).sum()
        };
        let (our_share, their_share) = (of(&ours) / our_time, of(&theirs) / their_time);
        let error = of(&variances).sqrt() / our_time;
        println!("{function} {does}: {our_share:.4} ± {error:.4}, by the trace {their_share:.4}");
        findings.hold((our_share - their_share).abs() <= most && error <= most, || {
            format!("{function} {does}: {our_share} ± {error}, by the trace {their_share}")
        });
        let (our_part, their_part) = (of(&ours) / whole(&ours), of(&theirs) / whole(&theirs));
        findings.hold((our_part - their_part).abs() <= most_of_one, || {
            format!("{does} of {function}: {our_part}, by the trace {their_part}")
        });
    }
}
