//! Scheduling latency of all goroutines, by start function, from the sample that the runtime takes itself.

use agent_common::{
    go::{
        ABSENT,
        latency::{PERIOD, SlowStart},
    },
    histogram::Series,
    hits::HitKind,
};

use crate::{
    aggregate::{Histogram, store::Reading},
    attach::plan::{Plan, usable},
    inspect::{ArgLocation, GoHook, GoImage, SiteCost},
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signals::events::{Addresses, EventKind, SignalEvent},
    signals::go::origins::{self, origin_attributes, started_with},
    signals::go::sched,
    signals::go::waits::Who,
    signals::points::{exponential, metric, slow_span},
    signals::summary::Summary,
    signals::{Check, Signal, State},
    target::Target,
    telemetry::go::{
        GC_MAX_PROCS,
        latency::{DEFS, GOROUTINE_LATENCY, GOROUTINE_RESUMED, SAMPLE_PERIOD},
    },
};

pub const NAME: &str = "go.latency";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::GoLatency],
    series: &[Series::GoLatency, Series::GoResumed],
    events: &[EventKind::of::<SlowStart>()],
    summary: Some(summary),
    check: Some(Check {
        what: "starts of goroutines that the runtime sampled",
        count: |target, _, reading| reading.whole(target.id, Series::GoLatency).count(),
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

/// Where the runtime records the latency of a start.
pub fn plan(image: &GoImage, plan: &mut Plan) {
    let found = match image.sites.get(&GoHook::Latency) {
        // In casgstatus, where it is inline.
        Some(Ok(site)) if site.args.is_empty() => inline(image).map(|offset| (site.clone(), offset)),
        site => {
            let arguments: &[ArgLocation] = &image.arch.go_arguments()[..GoHook::Latency.arguments()];
            usable(site, arguments).map(|site| (site, ABSENT))
        }
    };
    let found = found.and_then(|(site, runnable_time)| match site.cost {
        _ if plan.go.sched_time_to_run == ABSENT => {
            Err("where runtime.sched has its histogram is not known".to_owned())
        }
        // In the scheduler's path a single step costs too much.
        SiteCost::SingleStepped => Err(format!("{}: no instruction that the kernel emulates", site.function)),
        SiteCost::Emulated => Ok((site, runnable_time)),
    });
    let site = found.map(|(site, runnable_time)| {
        plan.go.g_runnable_time = runnable_time;
        site
    });
    plan.set_one(NAME, "go_latency", site);
}

/// The offset of g.runnableTime.
fn inline(image: &GoImage) -> Result<u32, String> {
    let offsets = image.offsets.as_ref().map_err(ToString::to_string)?;
    let field = offsets.g.runnable_time.as_ref();
    let field = field.ok_or("where a goroutine keeps the time that it was runnable is not known")?;
    Ok(field.offset as u32)
}

impl SignalEvent for SlowStart {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.push(span(self, target, state));
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            starts: vec![self.startpc],
            places: vec![self.gopc.saturating_sub(1)],
        }
    }
}

/// A goroutine that was runnable for long.
fn span(start: &SlowStart, target: &Target, state: &mut State) -> Span {
    let end = start.header.time;
    let who = Who {
        goid: start.goid,
        tid: start.header.tid,
        parent_goid: start.parent_goid,
        startpc: start.startpc,
        gopc: start.gopc,
        wait_reason: start.wait_reason,
    };
    let mut attributes = who.attributes(target, state);
    attributes.push(period());
    attributes.push(Attribute::new(GC_MAX_PROCS, i64::from(start.max_procs)));
    let origin = target.go_start(start.startpc) as u32;
    slow_span(
        state,
        (Series::GoLatency, origin),
        format!("runnable {}", started_with(start.startpc, target)),
        SpanKind::Internal,
        (MonoNs(end.saturating_sub(start.time)), MonoNs(end)),
        attributes,
    )
}

/// How many each value of the sample stands for.
fn period() -> Attribute {
    Attribute::new(SAMPLE_PERIOD, PERIOD as i64)
}

/// The distribution of each origin, as of all starts.
fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let distributions = origins::distributions(target, state, reading, Series::GoLatency);
    let points = distributions.into_iter().map(|(origin, histogram)| {
        let mut attributes = origin_attributes(origin, target);
        attributes.push(period());
        let exemplars = origin.map_or_else(Vec::new, |id| state.exemplars(Series::GoLatency, id));
        exponential(&histogram.times(PERIOD), target, reading.time, attributes, exemplars)
    });
    let resumed = reading.counter(target.id, Series::GoResumed);
    let resumed = (resumed > 0).then(|| target.sum(PERIOD * resumed, reading.time, vec![period()]));
    [
        metric(&GOROUTINE_LATENCY, points.collect()),
        metric(&GOROUTINE_RESUMED, resumed.into_iter().collect()),
    ]
    .concat()
}

/// How long goroutines were runnable, where the probes of windows do not see all of them.
fn summary(target: &Target, _: &State, reading: &Reading) -> Summary {
    let all: Histogram = reading.whole(target.id, Series::GoLatency);
    Summary::default().instead(sched::NAME, 0, sched::RUNNABLE, all.times(PERIOD))
}
