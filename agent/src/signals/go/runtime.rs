//! The Go runtime's own account, from the target's memory: no probe, no cost to the target, no GC needed first.

use std::{io, sync::Arc, time::Duration};

use crate::{
    attach::plan,
    deadline,
    inspect::GoImage,
    model::{Attribute, Metric, MonoNs, Point, PointData},
    runtime::go::{Between, CPU_CLASSES, GoRuntime, Snapshot, TimeHistogram},
    signal::Coverage,
    signals::points::metric,
    signals::summary::Summary,
    signals::{Check, MemoryRead, ReadWhen, Signal, State},
    target::Target,
    telemetry::{
        MetricDef,
        go::{
            gc::GC_FORCED,
            runtime::{
                CGO_CALLS, CONFIG_GOGC, CPU_CLASS, CPU_STATE, CPU_TIME, DEFS, GC_CYCLES, GC_PAUSE_DURATION,
                GC_PAUSE_KIND, GC_PAUSE_PHASE, GOROUTINE_COUNT, GOROUTINE_CREATED, LIMITER_ENABLED, LIMITER_LAST_CYCLE,
                MEMORY_ALLOCATED, MEMORY_ALLOCATIONS, MEMORY_GC_GOAL, MEMORY_LIMIT, MEMORY_RELEASED, MEMORY_TYPE,
                MEMORY_USED, PROCESSOR_LIMIT, SCAVENGE_GOAL, SCAVENGE_GOAL_BY, SCAVENGE_KIND, SCAVENGED,
                SCHEDULE_DURATION, SWEEP_DEBT, SWEEP_LEFT, THREAD_COUNT, THREAD_CREATED, THREAD_ENDED, THREAD_IDLE,
            },
        },
    },
};

pub const NAME: &str = "go.runtime";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    read: Some(MemoryRead {
        when: ReadWhen::Tick,
        read,
    }),
    summary: Some(|_, state, _| summary(state)),
    check: Some(Check {
        what: "goroutines",
        count: |_, state, _| {
            let latest = state.go.as_ref().and_then(|go| go.latest.as_ref());
            latest.map_or(0, |(_, snapshot)| snapshot.goroutines)
        },
    }),
    ..Signal::new(NAME, &DEFS, |target, state, _| metrics(target, state))
};

/// A Go process' runtime and its last reading.
pub struct GoState {
    runtime: Arc<GoRuntime>,
    /// Explicit bounds of the runtime's histograms, seconds.
    bounds: Arc<[f64]>,
    pub latest: Option<(MonoNs, Snapshot)>,
}

impl GoState {
    /// Nothing read yet.
    pub fn new(runtime: GoRuntime) -> Self {
        Self {
            bounds: runtime.bounds().into(),
            runtime: runtime.into(),
            latest: None,
        }
    }

    /// What others read it with, who see to it themselves that a read may hang.
    pub fn share(&self) -> Arc<GoRuntime> {
        self.runtime.clone()
    }

    /// Reads the memory of the process, for no longer than that. What did not answer is not asked again before it has.
    pub fn read<T: Send + 'static>(
        &self,
        pid: u32,
        most: Duration,
        read: impl FnOnce(&GoRuntime) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let runtime = self.runtime.clone();
        deadline::MEMORY.within(pid, most, move || read(&runtime))?
    }
}

/// Reads plane 0, if there is any and the runtime has started.
fn read(target: &Target, state: &mut State, now: MonoNs) -> io::Result<bool> {
    let off = state.is_never_on(NAME);
    let Some(go) = &mut state.go else { return Ok(false) };
    // Others read it too: the user may want their part only.
    if off {
        return Ok(false);
    }
    let snapshot = go.read(target.process.pid, deadline::SOON, |runtime| {
        runtime.is_started().then(|| runtime.snapshot()).transpose()
    })?;
    if let Some(snapshot) = snapshot {
        go.latest = Some((now, snapshot));
    }
    Ok(true)
}

/// How much of it there is.
pub fn coverage(image: &GoImage) -> Coverage {
    plan::coverage(without_home(image))
}

/// Variables that this version has and that were not found in this binary: what stands in them is absent.
fn without_home(image: &GoImage) -> Vec<String> {
    let (Ok(offsets), Ok(globals)) = (&image.offsets, &image.globals) else {
        return Vec::new();
    };
    let homes = [
        ("runtime.gcCPULimiter", offsets.limiter.enabled, globals.limiter),
        ("runtime.mheap_", offsets.heap.pages_in_use, globals.heap),
        ("runtime.sweep", offsets.sweep.active_state, globals.sweep),
        ("runtime.scavenge", offsets.scavenge.gc_percent_goal, globals.scavenge),
        ("runtime.allm", offsets.m.alllink, globals.allm),
        ("runtime.ncgocall", offsets.m.ncgocall, globals.c_calls),
    ];
    let missing = homes
        .into_iter()
        .filter(|(_, field, home)| field.is_some() && home.is_none());
    missing
        .map(|(name, ..)| format!("{name} was not found in this binary"))
        .collect()
}

/// The last snapshot as metrics.
pub fn metrics(target: &Target, state: &State) -> Vec<Metric> {
    let Some(go) = &state.go else { return Vec::new() };
    let Some((time, snapshot)) = &go.latest else {
        return Vec::new();
    };
    let time = *time;
    let gauge = |def: &'static MetricDef, value: u64| one(def, target.gauge(value as i64, time, Vec::new()));
    let sum = |def: &'static MetricDef, value: u64| one(def, target.sum_from(target.started, value, time, Vec::new()));
    let threads = snapshot.threads.iter().flat_map(|threads| {
        [
            gauge(&THREAD_COUNT, threads.created.saturating_sub(threads.ended)),
            gauge(&THREAD_IDLE, threads.idle),
            sum(&THREAD_CREATED, threads.created),
            sum(&THREAD_ENDED, threads.ended),
        ]
    });
    let memory =
        |kind: &'static str, bytes: u64| target.gauge(bytes as i64, time, vec![Attribute::new(MEMORY_TYPE, kind)]);
    let mut metrics = vec![
        gauge(&GOROUTINE_COUNT, snapshot.goroutines),
        gauge(&PROCESSOR_LIMIT, snapshot.gomaxprocs),
        gauge(&MEMORY_RELEASED, snapshot.released_bytes),
        sum(&MEMORY_ALLOCATED, snapshot.allocated_bytes),
        sum(&MEMORY_ALLOCATIONS, snapshot.allocated_objects),
    ];
    metrics.extend(threads);
    metrics.extend(
        snapshot
            .goroutines_created
            .map(|created| sum(&GOROUTINE_CREATED, created)),
    );
    metrics.extend(snapshot.c_calls.map(|calls| sum(&CGO_CALLS, calls)));
    metrics.extend(metric(
        &MEMORY_USED,
        vec![
            memory("stack", snapshot.stack_bytes),
            memory("other", snapshot.other_bytes),
        ],
    ));
    let forced = |forced: bool, cycles: u64| {
        target.sum_from(target.started, cycles, time, vec![Attribute::new(GC_FORCED, forced)])
    };
    metrics.extend(metric(
        &GC_CYCLES,
        vec![
            forced(false, snapshot.gc_cycles.saturating_sub(snapshot.gc_cycles_forced)),
            forced(true, snapshot.gc_cycles_forced),
        ],
    ));
    metrics.extend(snapshot.gogc.map(|percent| gauge(&CONFIG_GOGC, percent)));
    metrics.extend(snapshot.memory_limit.map(|limit| gauge(&MEMORY_LIMIT, limit)));
    metrics.extend(snapshot.heap_goal.map(|goal| gauge(&MEMORY_GC_GOAL, goal)));
    let histogram = |of: &TimeHistogram, attributes| point(of, &go.bounds, target.started, time, attributes);
    metrics.extend(
        snapshot
            .schedule
            .as_ref()
            .map(|schedule| one(&SCHEDULE_DURATION, histogram(schedule, Vec::new()))),
    );
    let mut pauses = Vec::new();
    for (phase, both) in [("total", &snapshot.pause_total), ("stopping", &snapshot.pause_stopping)] {
        for (kind, of) in ["gc", "other"].into_iter().zip(both.iter().flatten()) {
            let attributes = vec![
                Attribute::new(GC_PAUSE_PHASE, phase),
                Attribute::new(GC_PAUSE_KIND, kind),
            ];
            pauses.push(histogram(of, attributes));
        }
    }
    metrics.extend(metric(&GC_PAUSE_DURATION, pauses));
    let times = snapshot.cpu.iter().flat_map(|times| CPU_CLASSES.into_iter().zip(times));
    let times = times.map(|((state, class), ns)| Point {
        data: PointData::Time(*ns),
        ..target.sum_from(
            target.started,
            0,
            time,
            vec![Attribute::new(CPU_STATE, state), Attribute::new(CPU_CLASS, class)],
        )
    });
    metrics.extend(metric(&CPU_TIME, times.collect()));
    metrics.extend(between(target, time, &snapshot.between));
    metrics
}

/// The last snapshot in a line, with how many GC cycles are traces.
fn summary(state: &State) -> Summary {
    let latest = state.go.as_ref().and_then(|go| go.latest.as_ref());
    let Some((_, snapshot)) = latest else {
        return Summary::default();
    };
    let cycles = &state.cycles;
    let left_out = match cycles.left_out {
        0 => String::new(),
        left_out => format!(", {left_out} left out for --max-spans"),
    };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    Summary::default().fact(format!(
        "goroutines {}  GOMAXPROCS {}  heap goal {}  GC cycles {} ({} traced{left_out}, {} missed)",
        snapshot.goroutines,
        snapshot.gomaxprocs,
        snapshot.heap_goal.map_or_else(|| "none".to_owned(), mib),
        snapshot.gc_cycles,
        cycles.exported,
        cycles.missed
    ))
}

/// What holds the GC back, and what it does between its cycles.
fn between(target: &Target, time: MonoNs, found: &Between) -> Vec<Metric> {
    let gauge = |value: u64, attributes| target.gauge(value as i64, time, attributes);
    let limiter = found.limiter.iter().flat_map(|limiter| {
        [
            one(&LIMITER_ENABLED, gauge(u64::from(limiter.enabled), Vec::new())),
            one(&LIMITER_LAST_CYCLE, gauge(limiter.last_cycle, Vec::new())),
        ]
    });
    let sweep = found.sweep.iter().flat_map(|sweep| {
        [
            one(&SWEEP_DEBT, gauge(sweep.debt, Vec::new())),
            one(&SWEEP_LEFT, gauge(sweep.left, Vec::new())),
        ]
    });
    let goals = ["gogc", "gomemlimit"]
        .into_iter()
        .zip(found.scavenge_goals.iter().flatten());
    let goals = goals.filter_map(|(by, goal)| Some(gauge((*goal)?, vec![Attribute::new(SCAVENGE_GOAL_BY, by)])));
    let scavenged = ["background", "eager"]
        .into_iter()
        .zip(found.scavenged.iter().flatten());
    let scavenged = scavenged.map(|(kind, bytes)| {
        let attributes = vec![Attribute::new(SCAVENGE_KIND, kind)];
        target.sum_from(target.started, *bytes, time, attributes)
    });
    limiter
        .chain(sweep)
        .chain(metric(&SCAVENGE_GOAL, goals.collect()))
        .chain(metric(&SCAVENGED, scavenged.collect()))
        .collect()
}

fn one(def: &'static MetricDef, point: Point) -> Metric {
    Metric {
        def,
        points: vec![point],
    }
}

/// The runtime's histogram with its own bounds: underflow below the first, overflow above the last. It keeps no sum.
fn point(of: &TimeHistogram, bounds: &Arc<[f64]>, start: MonoNs, time: MonoNs, attributes: Vec<Attribute>) -> Point {
    let counts: Vec<u64> = std::iter::once(of.underflow)
        .chain(of.counts.iter().copied())
        .chain(std::iter::once(of.overflow))
        .collect();
    let count = counts.iter().sum();
    let data = PointData::Histogram {
        bounds: bounds.clone(),
        counts,
        sum: None,
        count,
    };
    Point {
        attributes,
        start,
        time,
        data,
        exemplars: Vec::new(),
    }
}
