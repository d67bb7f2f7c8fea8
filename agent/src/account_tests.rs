use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    budget::{Interval, Work},
    discover::{Process, process},
    signals::State,
    target::Target,
};

/// CLOCK_MONOTONIC, ns: when the target was attached.
const SINCE: u64 = 1_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn target() -> Watched {
    let process = Process {
        pid: 7,
        start: 0,
        exe: Path::new("/bin/shop").to_owned(),
        name: "shop".to_owned(),
        program: None,
        root: process::proc(),
    };
    Watched::new(Target::new(process, 1, Arc::default(), MonoNs(SINCE)), State::default())
}

fn reading() -> Reading {
    Reading::at(MonoNs(SINCE + 10 * SECOND))
}

/// A point's value and its attributes' values, in the order they have.
fn said(point: &Point) -> String {
    let value = match point.data {
        PointData::Sum(value) | PointData::Gauge(value) => value,
        ref other => panic!("{other:?}"),
    };
    let texts = point.attributes.iter().map(|attribute| match &attribute.value {
        crate::model::Value::Str(text) => text.to_string(),
        other => format!("{other:?}"),
    });
    texts.chain([value.to_string()]).collect::<Vec<_>>().join(" | ")
}

#[track_caller]
fn check(metrics: &[Metric], def: &MetricDef, expected: &[&str]) {
    let found = metrics.iter().find(|metric| std::ptr::eq(metric.def, def));
    let points: Vec<String> = found.map_or_else(Vec::new, |metric| metric.points.iter().map(said).collect());
    assert_eq!(points, expected, "{}", def.name);
}

fn state(signal: &'static str, coverage: Coverage) -> SignalState {
    SignalState { signal, coverage }
}

#[test]
fn each_signal_says_how_much_of_it_there_is_and_why_not_all() {
    let mut watched = target();
    watched.state.states = vec![
        state("net.request", Coverage::Full),
        state("go.gc", Coverage::Full),
        state("go.sched", Coverage::Partial("no runqput".to_owned())),
        state("thread.run_queue", Coverage::Off("left out".to_owned())),
    ];
    let partial = "go.sched | partial | no runqput | 1";
    let off = "thread.run_queue | off | left out | 1";
    let metrics = target_metrics(&watched, &reading());
    let full = ["net.request | full | 1", "go.gc | full | 1"];
    check(&metrics, &defs::SIGNAL_STATE, &[full[0], full[1], partial, off]);
    // Windows of the hooks: what is always in place is full all the same.
    watched.sockets.extrapolated = true;
    let windows = "net.request | windows | the budget covers 0.0 % of the time; counts are scaled | 1";
    let metrics = target_metrics(&watched, &reading());
    check(&metrics, &defs::SIGNAL_STATE, &[windows, full[1], partial, off]);
    watched.sockets.blocked_by = Some(99);
    let neighbour = "net.request | windows | process 99 also pays for the kernel's hooks in these windows, and its budget covers 0.0 % \
                     of the time; counts are scaled | 1";
    let metrics = target_metrics(&watched, &reading());
    check(&metrics, &defs::SIGNAL_STATE, &[neighbour, full[1], partial, off]);
    // A window, and ten seconds without one in which there was a hundred times the work.
    watched.sockets.blocked_by = None;
    let cpu = |cpu: f64| Work { cpu, ..Work::default() };
    let window = Interval {
        elapsed: 1e9,
        work: cpu(1e8),
        open: 1e8,
        open_work: cpu(1e7),
        bounded: true,
    };
    let extrapolator = &mut watched.sockets.extrapolator;
    extrapolator.commit(&reading(), 1, window);
    extrapolator.apply(&mut reading(), 1, cpu(1e11), 1e10);
    let outdated = "net.request | outdated | the load has risen since the last window, and counts lack some of that; the budget covers 0.9 % of the \
                    time; counts are scaled | 1";
    let metrics = target_metrics(&watched, &reading());
    check(&metrics, &defs::SIGNAL_STATE, &[outdated, full[1], partial, off]);
}

#[test]
fn hits_and_their_cost_are_told_by_probe_and_windows_only_where_there_are_any() {
    let mut watched = target();
    let metrics = target_metrics(&watched, &reading());
    for def in [
        &defs::OVERHEAD_HITS,
        &defs::OVERHEAD_TIME,
        &defs::WINDOW_OPEN,
        &defs::RESERVED,
    ] {
        check(&metrics, def, &[]);
    }
    let (probe, programs) = HitKind::ALL[3];
    watched.overhead.hits[probe as usize] = 12;
    watched.overhead.by_kind[probe as usize] = 3456.7;
    watched.probes.extrapolated = true;
    watched.probes.cuts = 5;
    let metrics = target_metrics(&watched, &reading());
    check(&metrics, &defs::OVERHEAD_HITS, &[&format!("{} | 12", programs[0])]);
    check(&metrics, &defs::OVERHEAD_TIME, &[&format!("{} | 3456", programs[0])]);
    check(&metrics, &defs::WINDOW_OPEN, &["probes | 0"]);
    check(&metrics, &defs::WINDOW_CUT, &["probes | 5"]);
    let hits = metrics
        .iter()
        .find(|metric| std::ptr::eq(metric.def, &defs::OVERHEAD_HITS));
    let point = &hits.unwrap().points[0];
    assert_eq!((point.start, point.time), (MonoNs(SINCE), reading().time));
}

#[test]
fn every_loss_and_every_fault_is_told_also_those_that_never_occurred() {
    let mut reading = reading();
    for (loss, _) in Loss::ALL {
        reading.loss[loss as usize] = 10 + loss as u64;
    }
    let (export, mut faults) = (ExportStats::default(), Faults::default());
    faults.note(Fault::Maps, "gone");
    let own = Own {
        start: MonoNs(SINCE),
        received: 1000,
        rejected: 2,
        over_limit: 3,
        late: 7,
        panics: 8,
        skipped: &[("go_execute".to_owned(), 4)],
        export: &export,
        shed: Shed::Windows,
        faults: &faults,
        used: (5, 6),
    };
    let metrics = own_metrics(&reading, &own);
    let mut lost: Vec<String> = Loss::ALL
        .iter()
        .map(|(loss, name)| format!("{name} | {}", 10 + *loss as u64))
        .collect();
    lost.extend(
        [
            "undecodable | 2",
            "span_limit | 3",
            "target_ended | 7",
            "inspection_failed | 8",
        ]
        .map(str::to_owned),
    );
    let lost: Vec<&str> = lost.iter().map(String::as_str).collect();
    check(&metrics, &defs::EVENTS_DROPPED, &lost);
    check(&metrics, &defs::EVENTS_RECEIVED, &["1000"]);
    let dropped: Vec<String> = Cause::ALL.iter().map(|(_, name)| format!("{name} | 0")).collect();
    let dropped: Vec<&str> = dropped.iter().map(String::as_str).collect();
    check(&metrics, &defs::EXPORT_DROPPED, &dropped);
    let met = [
        "screen | 0",
        "pictures | 0",
        "log | 0",
        "maps | 1",
        "ring | 0",
        "recording | 0",
        "late | 0",
        "kernel_log | 0",
    ];
    check(&metrics, &defs::FAULTS, &met);
    check(&metrics, &defs::RECURSION_MISSES, &["go_execute | 4"]);
    check(&metrics, &defs::SHED, &[&format!("{} | 2", Shed::Windows.text())]);
    check(&metrics, &defs::CPU_TIME, &["5"]);
    check(&metrics, &defs::MEMORY, &["6"]);
}
