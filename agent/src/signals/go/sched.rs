//! What goroutines do with their time: running, waiting and for what, runnable and why not yet running. The slow waits with who
//! they are, and who woke them.

use agent_common::{
    go::sched::{Source, UNREAD, Wait, Waker},
    histogram::Series,
    hits::HitKind,
};

use crate::{
    aggregate::store::Reading,
    attach::plan::{Plan, Probe, coverage, usable},
    inspect::{GoHook, GoImage, SiteCost},
    model::{Attribute, Link, Metric, MonoNs, Span, SpanKind},
    signal::Coverage,
    signals::events::{Addresses, EventKind, SignalEvent},
    signals::go::origins::{self, started_with},
    signals::go::reasons::reported_reasons,
    signals::go::waits::Who,
    signals::summary::{Summary, largest},
    signals::thread::run_queue,
    signals::{Check, Need, Signal, State},
    signals::{
        points::{count, distribution, slow_span},
        process::quota,
    },
    target::Target,
    telemetry::go::{
        GC_MAX_PROCS, GOROUTINE_WAIT_REASON,
        sched::{
            DEFS, GOROUTINE_CAUSE, GOROUTINE_RUNNABLE_DURATION, GOROUTINE_RUNNABLE_SOURCE, GOROUTINE_UNSTAMPED,
            GOROUTINE_WAIT_DURATION, GOROUTINE_WAKER_FUNCTION, GOROUTINE_WAKER_ID, GOROUTINE_WAKERS, PROCESSOR_IDLE,
            RUNNABLE_QUEUE, RUNNABLE_RUN_QUEUE, RUNNABLE_THROTTLED,
        },
    },
};

pub const NAME: &str = "go.sched";

/// The summary's row of scheduling latency.
pub const RUNNABLE: &str = "goroutine runnable → running";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[
        HitKind::GoExecute,
        HitKind::GoRunqput,
        HitKind::GoGosched,
        HitKind::GoExitsyscall,
        HitKind::GoNetpoll,
        HitKind::GoInjectglist,
        HitKind::GoPark,
        HitKind::GoExit,
    ],
    series: &[
        Series::GoRunnable,
        Series::GoUnstamped,
        Series::GoWaiting,
        Series::GoTime,
    ],
    start: Some(|_, state, thresholds, kernel| {
        kernel.slow_wait = thresholds.wait;
        kernel.reported_reasons = reported_reasons(&state.wait_reasons);
    }),
    needs: &[
        Need {
            of: run_queue::NAME,
            lost: "off-CPU time of threads is not reported separately",
        },
        Need {
            of: quota::NAME,
            lost: "the cgroup that throttles is not reported",
        },
    ],
    events: &[EventKind::of::<Wait>()],
    summary: Some(summary),
    check: Some(Check {
        what: "runnable → running",
        count: |target, _, reading| reading.whole(target.id, Series::GoRunnable).count(),
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

/// Hook, program, and whether the signal is nothing without it.
const SITES: [(GoHook, &str, bool); 8] = [
    (GoHook::Execute, "go_execute", true),
    (GoHook::RunqPut, "go_runqput", true),
    (GoHook::Gosched, "go_gosched", false),
    (GoHook::ExitSyscallNoP, "go_exitsyscall", false),
    (GoHook::NetpollReady, "go_netpoll", false),
    (GoHook::InjectGlist, "go_injectglist", false),
    // Without them a goroutine that waits, or is over, would be one that runs.
    (GoHook::Park, "go_park", true),
    (GoHook::Exit, "go_exit", true),
];

/// Where goroutines become runnable, run, and stop to.
pub fn plan(image: &GoImage, plan: &mut Plan) {
    let signal = NAME;
    let (mut probes, mut missing) = (Vec::new(), Vec::new());
    for (hook, program, essential) in SITES {
        // A single step costs tens of times more than an emulated instruction: not in the scheduler's path.
        let arguments = &image.arch.go_arguments()[..hook.arguments()];
        let site = usable(image.sites.get(&hook), arguments).and_then(|site| match site.cost {
            SiteCost::Emulated => Ok(site),
            SiteCost::SingleStepped => Err(format!("{}: no instruction that the kernel emulates", site.function)),
        });
        match site {
            Ok(site) => probes.push(Probe {
                signal,
                also: None,
                essential,
                program,
                site,
            }),
            Err(reason) if essential => return plan.set(signal, Coverage::Off(reason)),
            Err(reason) => missing.push(reason),
        }
    }
    plan.probes.extend(probes);
    plan.set(signal, coverage(missing));
}

/// How long goroutines were runnable and why, and what they waited for.
fn summary(target: &Target, state: &State, reading: &Reading) -> Summary {
    let runnable = reading.whole(target.id, Series::GoRunnable);
    let reported = reported_reasons(&state.wait_reasons);
    let mut waits = largest(reading, target.id, Series::GoWaiting);
    waits.retain(|(reason, _)| reported >> (reason & 63) & 1 != 0);
    let turns = origins::turns(target, state, reading);
    Summary::default()
        .whole(0, RUNNABLE, runnable)
        .split(0, waits, |reason| format!("wait {}", state.wait_reason(reason)))
        .note(1, turns.map(|turns| format!("runnable, not running: {turns}")))
}

impl SignalEvent for Wait {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.extend(self::spans(self, target, state));
    }

    fn throttled(&self) -> u64 {
        self.throttled
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            starts: [self.startpc]
                .into_iter()
                .chain(self.wakers.map(|waker| waker.startpc))
                .collect(),
            places: vec![self.gopc.saturating_sub(1)],
        }
    }
}

/// A slow wait: a goroutine that waited for its turn, or for something before that as well. What it waited for and its turn are
/// parts then.
pub fn spans(wait: &Wait, target: &Target, state: &mut State) -> Vec<Span> {
    let who = started_with(wait.startpc, target);
    let ran = wait.header.time;
    let links: Vec<Link> = wait
        .wakers
        .iter()
        .filter_map(|waker| state.waits.link(waker.goid, waker.ran))
        .collect();
    let attributes = attributes(wait, target, state);
    let mut spans = if wait.waited != 0 {
        let times = (MonoNs(wait.parked), MonoNs(ran));
        let series = (Series::GoWaiting, wait.wait_reason);
        let reason = state.wait_reason(wait.wait_reason);
        let root = slow_span(
            state,
            series,
            format!("wait {who}"),
            SpanKind::Internal,
            times,
            attributes,
        );
        let since = MonoNs(wait.since);
        let waited = root.child(reason, times.0, since, Vec::new());
        let runnable = root.child(format!("runnable {who}"), since, times.1, turn(wait, state));
        vec![root, waited, runnable]
    } else {
        let times = (MonoNs(wait.since), MonoNs(ran));
        let attributes = attributes.into_iter().chain(turn(wait, state)).collect();
        let series = (Series::GoRunnable, 0);
        vec![slow_span(
            state,
            series,
            format!("runnable {who}"),
            SpanKind::Internal,
            times,
            attributes,
        )]
    };
    spans[0].links = links;
    state.waits.insert(wait.goid, ran, spans[0].link());
    spans
}

/// Who waited, what for, and who woke it.
fn attributes(wait: &Wait, target: &Target, state: &State) -> Vec<Attribute> {
    let who = Who {
        goid: wait.goid,
        tid: wait.header.tid,
        parent_goid: wait.parent_goid,
        startpc: wait.startpc,
        gopc: wait.gopc,
        wait_reason: wait.wait_reason,
    };
    let mut attributes = who.attributes(target, state);
    let wakers: Vec<&Waker> = wait.wakers.iter().take_while(|waker| waker.goid != 0).collect();
    if let Some(waker) = wakers.first() {
        attributes.push(Attribute::new(GOROUTINE_WAKER_ID, waker.goid as i64));
        attributes.push(Attribute::new(
            GOROUTINE_WAKER_FUNCTION,
            started_with(waker.startpc, target),
        ));
    }
    if wakers.len() > 1 {
        let chain: Vec<String> = wakers
            .iter()
            .map(|waker| format!("{} {}", started_with(waker.startpc, target), waker.goid))
            .collect();
        attributes.push(Attribute::new(GOROUTINE_WAKERS, chain));
    }
    attributes
}

/// How it came to be runnable, and why it did not run at once.
fn turn(wait: &Wait, state: &State) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::new(GOROUTINE_RUNNABLE_SOURCE, source(wait.source)),
        Attribute::new(GC_MAX_PROCS, i64::from(wait.max_procs)),
    ];
    if wait.queue != UNREAD {
        attributes.push(Attribute::new(RUNNABLE_QUEUE, i64::from(wait.queue)));
    }
    if wait.idle != UNREAD {
        attributes.push(Attribute::new(PROCESSOR_IDLE, i64::from(wait.idle)));
    }
    if wait.split != 0 {
        attributes.push(Attribute::new(RUNNABLE_RUN_QUEUE, wait.run_queue as i64));
        attributes.push(Attribute::new(RUNNABLE_THROTTLED, wait.throttled as i64));
        attributes.push(Attribute::new(GOROUTINE_CAUSE, cause(wait)));
        attributes.extend(quota::attribute(state, wait.throttled));
    }
    attributes
}

/// What most of the time from runnable to running went into.
fn cause(wait: &Wait) -> &'static str {
    let time = wait.header.time.saturating_sub(wait.since);
    let rest = time.saturating_sub(wait.run_queue + wait.throttled);
    let of_rest = if wait.idle == 0 {
        "no_processor"
    } else {
        "idle_processor"
    };
    let causes = [
        (wait.throttled, "throttled"),
        (wait.run_queue, "run_queue"),
        (rest, of_rest),
    ];
    causes
        .into_iter()
        .max_by_key(|(time, _)| *time)
        .map_or(of_rest, |(_, cause)| cause)
}

/// The distributions of all waits and turns, and where the time of each origin went.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let mut metrics = distribution(
        &GOROUTINE_RUNNABLE_DURATION,
        target,
        state,
        Series::GoRunnable,
        reading,
        |_| Vec::new(),
    );
    metrics.extend(distribution(
        &GOROUTINE_WAIT_DURATION,
        target,
        state,
        Series::GoWaiting,
        reading,
        |reason| vec![Attribute::new(GOROUTINE_WAIT_REASON, state.wait_reason(reason))],
    ));
    metrics.extend(count(&GOROUTINE_UNSTAMPED, target, Series::GoUnstamped, reading));
    metrics.extend(origins::metrics(target, state, reading));
    metrics
}

fn source(source: u32) -> &'static str {
    match source {
        _ if source == Source::RunqPut as u32 => "ready",
        _ if source == Source::Gosched as u32 => "yield_or_preempt",
        _ if source == Source::ExitSyscall as u32 => "syscall_exit",
        _ if source == Source::Netpoll as u32 => "netpoll",
        _ if source == Source::InjectList as u32 => "runtime_list",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::discover::Process;

    #[test]
    fn the_largest_part_is_the_cause() {
        let check = |(run_queue, throttled, idle), expected| {
            let mut wait = Wait {
                since: 1000,
                run_queue,
                throttled,
                idle,
                ..Wait::default()
            };
            wait.header.time = 2000;
            assert_eq!(cause(&wait), expected, "{run_queue} {throttled} {idle}");
        };
        check((0, 0, 0), "no_processor");
        check((0, 0, 1), "idle_processor");
        check((600, 0, 0), "run_queue");
        check((100, 700, 1), "throttled");
    }

    #[test]
    fn a_wait_links_to_that_of_who_ended_it() {
        let process = Process::read(std::process::id()).unwrap();
        let target = Target::new(process, 1, Arc::default(), MonoNs(0));
        let mut state = State::default();
        let mut wait = Wait {
            goid: 7,
            since: 1000,
            ..Wait::default()
        };
        wait.header.time = 5000;
        let first = spans(&wait, &target, &mut state);
        assert_eq!((first.len(), first[0].links.len()), (1, 0));
        let waker = |goid, ran| Waker {
            goid,
            ran,
            ..Waker::default()
        };
        let mut woken = Wait {
            goid: 8,
            parked: 1000,
            since: 6000,
            waited: 1,
            // The second ran at another time than any wait that is known of it ended.
            wakers: [waker(7, 5000), waker(7, 4000), Waker::default()],
            ..Wait::default()
        };
        woken.header.time = 7000;
        let second = spans(&woken, &target, &mut state);
        assert_eq!(second[0].links, [first[0].link()]);
        // The wait and the turn are its parts.
        let times: Vec<_> = second.iter().map(|span| (span.start.0, span.end.0)).collect();
        assert_eq!(times, [(1000, 7000), (1000, 6000), (6000, 7000)]);
        assert!(second[1..].iter().all(|part| part.parent == Some(second[0].span_id)));
    }
}
