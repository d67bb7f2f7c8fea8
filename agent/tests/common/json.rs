//! OTLP as JSON, read: attributes, numbers, times, quantiles.

use std::collections::BTreeSet;

use serde_json::Value;

/// A JSON array's elements; none when it is no array.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// An OTLP attribute's value of a resource, span or point: a string, a number or a truth value.
pub fn attribute(of: &Value, key: &str) -> Option<Value> {
    let found = list(&of["attributes"]).find(|attribute| attribute["key"] == key)?;
    let value = &found["value"];
    if let Some(number) = value.get("intValue") {
        return Some(Value::from(number_of(number)));
    }
    value.get("stringValue").or_else(|| value.get("boolValue")).cloned()
}

/// OTLP's JSON writes 64-bit numbers as strings.
pub fn number_of(value: &Value) -> i64 {
    value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Both clocks, as near to each other as a few tries give.
pub fn clocks() -> (i64, i64) {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    let tries = (0..20).map(|_| {
        let before = read(ClockId::Monotonic);
        let wall = read(ClockId::Realtime);
        (before, wall, read(ClockId::Monotonic) - before)
    });
    let (mono, wall, gap) = tries.min_by_key(|(_, _, gap)| *gap).unwrap();
    (mono + gap / 2, wall)
}

/// A time of OTLP's JSON on the monotonic clock, ns.
pub fn to_mono(time: &Value, mono: i64, wall: i64) -> i64 {
    number_of(time) - wall + mono
}

/// Quantile of an OTLP exponential histogram point, in its unit: the geometric middle of the bucket.
pub fn exp_quantile(point: &Value, q: f64) -> f64 {
    let scale = point["scale"].as_i64().unwrap() as i32;
    let offset = point["positive"]["offset"].as_i64().unwrap_or(0) as i32;
    let counts: Vec<i64> = list(&point["positive"]["bucketCounts"]).map(number_of).collect();
    let total: i64 = counts.iter().sum();
    let rank = ((q * total as f64).ceil() as i64).max(1);
    let mut seen = 0;
    for (index, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= rank {
            let base = 2f64.powf(2f64.powi(-scale));
            return base.powf(f64::from(offset) + index as f64 + 0.5);
        }
    }
    panic!("an empty histogram has no quantile")
}

/// The last points of a metric of a process, in OTLP requests as JSON.
pub fn points(requests: &[Value], service: &str, metric: &str) -> Vec<Value> {
    let found = requests
        .iter()
        .rev()
        .flat_map(|line| list(&line["resourceMetrics"]))
        .find_map(|resource| {
            if attribute(&resource["resource"], "service.name") != Some(Value::from(service)) {
                return None;
            }
            let metrics = list(&resource["scopeMetrics"]).flat_map(|scope| list(&scope["metrics"]));
            metrics.into_iter().find(|found| found["name"] == metric)
        });
    let Some(found) = found else { return Vec::new() };
    let kinds = ["gauge", "sum", "histogram", "exponentialHistogram"];
    kinds
        .iter()
        .flat_map(|kind| list(&found[*kind]["dataPoints"]))
        .cloned()
        .collect()
}

/// The sum of those of some points that have this cause.
pub fn of_cause(points: &[Value], cause: &str) -> i64 {
    let of_cause = points
        .iter()
        .filter(|point| attribute(point, "whywait.cause") == Some(cause.into()));
    of_cause.map(|point| number_of(&point["asInt"])).sum()
}

/// Findings of a process at any time, in OTLP requests as JSON: (rule, sentence).
pub fn findings(requests: &[Value], service: &str) -> BTreeSet<(String, String)> {
    let of_process = requests
        .iter()
        .flat_map(|line| list(&line["resourceMetrics"]))
        .filter(|resource| attribute(&resource["resource"], "service.name") == Some(service.into()));
    let metrics = of_process
        .flat_map(|resource| list(&resource["scopeMetrics"]))
        .flat_map(|scope| list(&scope["metrics"]))
        .filter(|metric| metric["name"] == "whywait.finding");
    let points = metrics.flat_map(|metric| list(&metric["gauge"]["dataPoints"]));
    let text = |point: &Value, key| attribute(point, key).unwrap().as_str().unwrap().to_owned();
    points
        .map(|point| {
            (
                text(point, "whywait.finding.name"),
                text(point, "whywait.finding.sentence"),
            )
        })
        .collect()
}
