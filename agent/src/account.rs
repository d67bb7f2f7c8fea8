//! What the agent says of itself and of its own limits: losses, deliveries, and how much of each signal there is.

use agent_common::{
    hits::{HitKind, Plane},
    loss::Loss,
    target::SharedMap,
};

use crate::{
    aggregate::store::Reading,
    export::{Cause, ExportStats},
    faults::{Fault, Faults},
    limits::Shed,
    model::{Attribute, Metric, MonoNs, Point, PointData},
    signal::{Coverage, SignalState},
    signals,
    telemetry::{MetricDef, agent as defs},
    watch::{Bound, PlaneState, Watched},
};

/// Everything there is to say of a target at this reading; its exemplars leave with it.
pub fn all_metrics(watched: &mut Watched, reading: &Reading) -> Vec<Metric> {
    let Watched { target, state, .. } = watched;
    signals::note(target, state, reading);
    watched.judge(reading);
    let Watched { target, state, .. } = watched;
    let mut metrics = signals::metrics(target, state, reading);
    metrics.extend(watched.findings.metrics(target, reading.time));
    metrics.extend(target_metrics(watched, reading));
    watched.state.forget_exemplars();
    metrics
}

/// What there is of each signal of a target, and what that costs it.
pub fn target_metrics(watched: &Watched, reading: &Reading) -> Vec<Metric> {
    let mut metrics = vec![state_metric(watched, reading)];
    let (overhead, hits) = (&watched.overhead, &watched.overhead.hits);
    let used = || HitKind::ALL.iter().filter(|(probe, _)| hits[*probe as usize] > 0);
    let by_probe = |def: &'static MetricDef, cold: bool, value: &dyn Fn(usize) -> u64| Metric {
        def,
        points: used()
            .filter(|(probe, _)| cold || !probe.is_cold())
            .map(|(probe, programs)| {
                let kind = vec![Attribute::new(defs::PROBE, programs[0])];
                watched.target.sum(value(*probe as usize), reading.time, kind)
            })
            .collect(),
    };
    metrics.push(by_probe(&defs::OVERHEAD_HITS, false, &|index| hits[index]));
    metrics.push(by_probe(&defs::OVERHEAD_TIME, true, &|index| {
        overhead.by_kind[index] as u64
    }));
    let refused = SharedMap::ALL.map(|of| (of.name(), watched.refused.times[of as usize]));
    let over = [
        ("histogram_quota", watched.usage.refused_values),
        ("peer_quota", watched.usage.refused_peers),
    ];
    metrics.push(Metric {
        def: &defs::QUOTA_EXCEEDED,
        points: over
            .into_iter()
            .chain(refused)
            .filter(|(_, count)| *count > 0)
            .map(|(cause, count)| {
                watched
                    .target
                    .sum(count, reading.time, vec![Attribute::new(defs::CAUSE, cause)])
            })
            .collect(),
    });
    // What the extrapolated counts stand for.
    let planes = Plane::ALL.map(|plane| (watched.plane(plane), plane.name()));
    let extrapolated: Vec<_> = planes
        .into_iter()
        .filter(|(plane_state, _)| plane_state.extrapolated)
        .collect();
    let by_plane = |def: &'static MetricDef, value: &dyn Fn(&PlaneState) -> u64| Metric {
        def,
        points: extrapolated
            .iter()
            .map(|(plane_state, name)| {
                watched.target.sum(
                    value(plane_state),
                    reading.time,
                    vec![Attribute::new(defs::PLANE, *name)],
                )
            })
            .collect(),
    };
    metrics.push(by_plane(&defs::WINDOW_OPEN, &|plane_state| {
        plane_state.times(reading.time).0 as u64
    }));
    metrics.push(by_plane(&defs::WINDOW_TIME, &|plane_state| {
        plane_state.times(reading.time).1 as u64
    }));
    metrics.push(by_plane(&defs::WINDOW_CUT, &|plane_state| plane_state.cuts));
    if !extrapolated.is_empty() {
        let reserved = (100.0 * watched.benefit.reserved()).round() as i64;
        metrics.push(Metric {
            def: &defs::RESERVED,
            points: vec![watched.target.gauge(reserved, reading.time, Vec::new())],
        });
    }
    metrics.extend(watched.latency.ratio().map(|ratio| {
        let mut point = watched.target.gauge(0, reading.time, Vec::new());
        point.data = PointData::Real(ratio);
        Metric {
            def: &defs::LATENCY_RATIO,
            points: vec![point],
        }
    }));
    metrics.retain(|metric| !metric.points.is_empty());
    metrics
}

/// How much of each signal there is, with the reason where it is not all.
fn state_metric(watched: &Watched, reading: &Reading) -> Metric {
    let point = |state: &SignalState| {
        let plane_state = watched.plane_of(state.signal);
        let share = plane_state.map_or(1.0, |plane_state| plane_state.coverage(reading.time));
        let (coverage, cause) = match &state.coverage {
            Coverage::Full if share < 1.0 => {
                let share = 100.0 * share;
                let cause = match plane_state.map_or(Bound::Budget, PlaneState::bound) {
                    Bound::Shortest => {
                        "even the shortest window costs more than the budget of 5 s; whywait opens one a minute to check again"
                            .to_owned()
                    }
                    Bound::Tail => format!(
                        "windows cover {share:.2} % of the time, as more would lengthen the 99th percentile of latency (--budget-p99); counts are scaled"
                    ),
                    Bound::Neighbour(pid) => format!(
                        "process {pid} also pays for the kernel's hooks in these windows, and its budget covers {share:.1} % of the time; counts are scaled"
                    ),
                    Bound::Budget => format!("the budget covers {share:.1} % of the time; counts are scaled"),
                };
                if plane_state.is_some_and(PlaneState::is_outdated) {
                    let outdated =
                        format!("the load has risen since the last window, and counts lack some of that; {cause}");
                    ("outdated", Some(outdated))
                } else {
                    ("windows", Some(cause))
                }
            }
            Coverage::Full => ("full", None),
            Coverage::Partial(cause) => ("partial", Some(cause.clone())),
            Coverage::Off(cause) | Coverage::Lacking(cause) => ("off", Some(cause.clone())),
        };
        let mut attributes = vec![
            Attribute::new(defs::SIGNAL, state.signal),
            Attribute::new(defs::COVERAGE, coverage),
        ];
        attributes.extend(cause.map(|cause| Attribute::new(defs::CAUSE, cause)));
        watched.target.gauge(1, reading.time, attributes)
    };
    Metric {
        def: &defs::SIGNAL_STATE,
        points: watched.state.states.iter().map(point).collect(),
    }
}

/// What the agent knows of itself.
pub struct Own<'a> {
    /// Since when it counts.
    pub start: MonoNs,
    pub received: u64,
    pub rejected: u64,
    pub over_limit: u64,
    /// Events of targets whose last figures had left.
    pub late: u64,
    /// Inspections that panicked.
    pub panics: u64,
    /// Runs that the kernel skipped, by program.
    pub skipped: &'a [(String, u64)],
    pub export: &'a ExportStats,
    pub shed: Shed,
    pub faults: &'a Faults,
    /// CPU time, ns, and resident set, bytes.
    pub used: (u64, u64),
}

/// What the agent says of itself.
pub fn own_metrics(reading: &Reading, own: &Own<'_>) -> Vec<Metric> {
    let Own {
        start,
        received,
        rejected,
        over_limit,
        late,
        panics,
        skipped,
        export,
        shed,
        faults,
        used: (cpu, memory),
    } = *own;
    let sum = |value: u64, attributes: Vec<Attribute>| Point {
        attributes,
        start,
        time: reading.time,
        data: PointData::Sum(value as i64),
        exemplars: Vec::new(),
    };
    let one = |def: &'static MetricDef, value: u64| Metric {
        def,
        points: vec![sum(value, Vec::new())],
    };
    let gauge = |def: &'static MetricDef, value: u64, attributes: Vec<Attribute>| Metric {
        def,
        points: vec![Point {
            data: PointData::Gauge(value as i64),
            ..sum(0, attributes)
        }],
    };
    let cause = |name: &'static str| vec![Attribute::new(defs::CAUSE, name)];
    let mut dropped: Vec<Point> = Loss::ALL
        .iter()
        .map(|(loss, name)| sum(reading.loss[*loss as usize], cause(name)))
        .collect();
    dropped.push(sum(rejected, cause("undecodable")));
    dropped.push(sum(over_limit, cause("span_limit")));
    dropped.push(sum(late, cause("target_ended")));
    dropped.push(sum(panics, cause("inspection_failed")));
    let given_up = Cause::ALL
        .iter()
        .map(|(why, name)| sum(export.dropped_by(*why), cause(name)))
        .collect();
    let met = Fault::ALL
        .iter()
        .map(|(fault, name, _)| sum(faults.counts[*fault as usize], cause(name)))
        .collect();
    let skipped: Vec<Point> = skipped
        .iter()
        .map(|(program, runs)| sum(*runs, vec![Attribute::new(defs::PROBE, program.clone())]))
        .collect();
    let mut metrics = vec![
        one(&defs::EVENTS_RECEIVED, received),
        Metric {
            def: &defs::EVENTS_DROPPED,
            points: dropped,
        },
        one(&defs::EXPORT_SENT, export.total_sent()),
        Metric {
            def: &defs::EXPORT_DROPPED,
            points: given_up,
        },
        Metric {
            def: &defs::FAULTS,
            points: met,
        },
        gauge(&defs::SHED, shed as u64, cause(shed.text())),
        one(&defs::CPU_TIME, cpu),
        gauge(&defs::MEMORY, memory, Vec::new()),
    ];
    metrics.extend(signals::points::metric(&defs::RECURSION_MISSES, skipped));
    metrics
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
