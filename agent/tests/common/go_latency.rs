//! The runtime's sample of scheduling latency, as whywait counts it, against the runtime's own histogram, and by start function against the
//! execution trace.

use serde_json::Value;

use super::Findings;
use crate::{
    common::{list, number_of},
    go_life::Said,
};

/// One start in so many is in the sample.
const PERIOD: i64 = 8;
/// Goroutines that start between two readings, as in go_memory.
const MOMENT: i64 = 32;
/// Functions whose goroutines wait all the time and make no system calls; how many goroutines of them there are.
const WAITING: [(&str, i64); 4] = [
    ("main.pong", 1),
    ("main.hear", 1),
    ("main.choose", 1),
    ("main.yield", 2),
];

pub fn latencies(said: &Said, findings: &mut Findings) {
    let points = said.points("go.goroutine.latency.duration");
    let counted: i64 = points.iter().map(|point| number_of(&point["count"])).sum();
    let resumed = said.sum("go.goroutine.resumed", &[]);
    for (what, count) in [("started", counted), ("resumed", resumed)] {
        findings.same(&format!("{what}, of {PERIOD}"), count % PERIOD, 0);
    }
    let (ours, sampled) = ((counted + resumed) / PERIOD, said.told("sampled"));
    findings.hold((sampled..=sampled + MOMENT).contains(&ours), || {
        format!("starts in the sample: {ours}, not {sampled}")
    });
    println!(
        "sampled: {ours}, by the runtime {sampled}; {} not runnable",
        resumed / PERIOD
    );
    by_bucket(said, &points, resumed, findings);
    for (function, goroutines) in WAITING {
        let ours = said.sum("go.goroutine.latency.duration", &[("go.goroutine.function", function)]);
        let states = &said.trace["functions"][function]["states"]["runnable"]["count"];
        let traced = if states.is_null() { 0 } else { number_of(states) };
        // Each goroutine's first count is random. When its stack grows, that counts as well.
        findings.hold((ours - traced).abs() <= PERIOD * (goroutines + 1) + traced / 50, || {
            format!("{function}: {ours} starts, by the trace {traced}")
        });
    }
}

/// How many were shorter than each of the bounds that the runtime counts by. Ours are other buckets: those about the bound may be counted
/// either way. The runtime counts what was before the probe, too.
fn by_bucket(said: &Said, points: &[Value], resumed: i64, findings: &mut Findings) {
    let runtimes = said.points("go.schedule.duration");
    let Some(runtimes) = runtimes.first() else {
        return findings.hold(false, || "no go.schedule.duration".to_owned());
    };
    let before = said.told("all_sampled") - said.told("sampled");
    let mut shorter = 0;
    let counts = list(&runtimes["bucketCounts"]).map(number_of);
    let bounds = list(&runtimes["explicitBounds"]).filter_map(Value::as_f64);
    for (count, bound) in counts.zip(bounds) {
        shorter += count;
        let least = resumed / PERIOD + points.iter().map(|point| below(point, bound).0).sum::<i64>() / PERIOD;
        let most = resumed / PERIOD + points.iter().map(|point| below(point, bound).1).sum::<i64>() / PERIOD;
        let most = if bound > 0.0 { most } else { 0 };
        let least = if bound > 0.0 { least } else { 0 };
        findings.hold((least - MOMENT..=most + before + MOMENT).contains(&shorter), || {
            format!("below {bound} s: {least} to {most}, the runtime's {shorter}, {before} of them before")
        });
    }
}

/// Values of a point that are surely below `bound`, s, and those that may be. A bucket of the kernel side's goes whole where its middle
/// belongs.
fn below(point: &Value, bound: f64) -> (i64, i64) {
    const WIDTH: f64 = 1.0 / 16.0;
    const MIDDLE: f64 = 1.02;
    let zero = point.get("zeroCount").map_or(0, number_of);
    let offset = point["positive"]["offset"].as_f64().unwrap_or(0.0);
    let (mut surely, mut perhaps, mut low) = (zero, zero, offset * WIDTH);
    for count in list(&point["positive"]["bucketCounts"]).map(number_of) {
        if (low + WIDTH).exp2() * MIDDLE <= bound {
            surely += count;
        }
        if low.exp2() <= bound * MIDDLE {
            perhaps += count;
        }
        low += WIDTH;
    }
    (surely, perhaps)
}
