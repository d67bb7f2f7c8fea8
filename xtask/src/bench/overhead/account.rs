//! The second witness: what the agent itself says that it costs, from the metrics it writes.

use std::{path::Path, time::SystemTime};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Deserializer, de::Error as _};

/// How often the agent writes a point, s, where windows have so many seconds: its default halved, and less where that is half a window,
/// so that there is one near each end of it.
pub(super) fn interval(seconds: u32) -> u32 {
    (seconds / 2).clamp(1, 5)
}

const METRIC: &str = "whywait.overhead.cpu.time";

/// Cost so far at a point in time, both ns.
type Point = (u64, u64);

/// What the agent that wrote into `out` says the process `pid` paid between two moments, ns.
pub(super) fn cost(out: &Path, pid: u32, began: SystemTime, ended: SystemTime) -> Result<f64> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).context("the agent's metrics")?;
    let points = points(&text, pid)?;
    if points.is_empty() {
        bail!("the agent's metrics say nothing of process {pid}");
    }
    Ok(at(&points, nanoseconds(ended)?) - at(&points, nanoseconds(began)?))
}

/// The cost at a moment, on the line between the points around it: the nearest one may be half an interval away.
fn at(points: &[Point], moment: u64) -> f64 {
    let after = points.partition_point(|(time, _)| *time <= moment);
    let cost = |at: usize| points[at].1 as f64;
    if after == 0 || after == points.len() {
        return cost(after.saturating_sub(1));
    }
    let (from, to) = (points[after - 1].0, points[after].0);
    let part = (moment - from) as f64 / (to - from) as f64;
    cost(after - 1) + part * (cost(after) - cost(after - 1))
}

/// A point for each time the process was reported: the sum over all probes, 0 while none was ever hit.
fn points(text: &str, pid: u32) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).context("a line of the agent's metrics")?;
        for resource in line.resource_metrics.iter().filter(|of| of.is(pid)) {
            let metrics = || resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            let time = metrics().flat_map(Metric::figures).map(|figure| figure.time).max();
            let paid = metrics().filter(|metric| metric.name == METRIC);
            let cost = paid.flat_map(Metric::figures).map(|figure| figure.value).sum();
            points.extend(time.map(|time| (time, cost)));
        }
    }
    points.sort_unstable();
    Ok(points)
}

fn nanoseconds(moment: SystemTime) -> Result<u64> {
    Ok(moment.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceMetrics {
    resource: Resource,
    scope_metrics: Vec<ScopeMetrics>,
}

impl ResourceMetrics {
    fn is(&self, pid: u32) -> bool {
        let pid = pid.to_string();
        let attributes = &self.resource.attributes;
        attributes
            .iter()
            .any(|attribute| attribute["key"] == "process.pid" && attribute["value"]["intValue"] == *pid)
    }
}

#[derive(Deserialize)]
struct Resource {
    attributes: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct ScopeMetrics {
    metrics: Vec<Metric>,
}

/// Counters and gauges are enough: every report of a target has some.
#[derive(Deserialize)]
struct Metric {
    name: String,
    sum: Option<Figures>,
    gauge: Option<Figures>,
}

impl Metric {
    fn figures(&self) -> impl Iterator<Item = &Figure> {
        let either = self.sum.iter().chain(&self.gauge);
        either.flat_map(|figures| &figures.data_points)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    data_points: Vec<Figure>,
}

#[derive(Deserialize)]
struct Figure {
    #[serde(rename = "timeUnixNano", deserialize_with = "number")]
    time: u64,
    /// 0 of gauges with a fraction, which are no cost.
    #[serde(rename = "asInt", default, deserialize_with = "number")]
    value: u64,
}

/// OTLP's JSON writes 64 bits as text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the process with these costs by probe.
    fn line(pid: u32, time: u64, costs: &[u64]) -> String {
        let point = |cost: &u64| format!(r#"{{"asInt":"{cost}","timeUnixNano":"{time}"}}"#);
        let points: Vec<String> = costs.iter().map(point).collect();
        format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"process.pid","value":{{"intValue":"{pid}"}}}}]}},"scopeMetrics":[{{"metrics":[
            {{"name":"whywait.signal.state","gauge":{{"dataPoints":[{{"asInt":"1","timeUnixNano":"{time}"}}]}}}},
            {{"name":"whywait.overhead.cpu.time","sum":{{"dataPoints":[{}]}}}}]}}]}}]}}"#,
            points.join(",")
        )
        .replace('\n', "")
    }

    #[test]
    fn probes_are_summed_and_other_processes_left_out() {
        let text = [line(7, 10, &[]), line(8, 10, &[99]), line(7, 20, &[3, 4])].join("\n");
        assert_eq!(points(&text, 7).unwrap(), [(10, 0), (20, 7)]);
        assert!(points("{", 7).is_err());
    }

    #[test]
    fn a_point_is_near_each_end_of_a_window() {
        assert_eq!([1, 2, 4, 6, 10, 60].map(interval), [1, 1, 2, 3, 5, 5]);
    }

    #[test]
    fn between_points_the_cost_grows_evenly() {
        let points = [(10, 100), (20, 200), (30, 200)];
        let check = |moment, expected| assert_eq!(at(&points, moment), expected, "{moment}");
        check(5, 100.0);
        check(10, 100.0);
        check(15, 150.0);
        check(20, 200.0);
        check(29, 200.0);
        check(40, 200.0);
    }
}
