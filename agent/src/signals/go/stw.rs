//! Stops of the world: why, who requested it, how long until all had stopped, who was last, and how long the world stood.

use agent_common::{
    go::stw::{MARK_TERMINATION, NONE, START, SWEEP_TERMINATION, Stop},
    histogram::Series,
    hits::HitKind,
};

use crate::{
    aggregate::store::Reading,
    attach::plan::{Plan, Probe, usable},
    inspect::{Frame, GoHook, GoImage},
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signal::Coverage,
    signals::events::{Addresses, EventKind, SignalEvent},
    signals::go::gc,
    signals::go::origins::{function_attributes, started_with},
    signals::thread::run_queue,
    signals::{Need, Signal, State},
    signals::{points::distribution, process::quota},
    target::Target,
    telemetry::go::{
        GOROUTINE_CREATOR_FUNCTION, GOROUTINE_FUNCTION, GOROUTINE_ID,
        gc::GC_TRIGGER,
        stw::{
            DEFS, STW_DURATION, STW_LAST_ASLEEP, STW_LAST_AT, STW_LAST_FUNCTION, STW_LAST_ID, STW_LAST_RUN_QUEUE,
            STW_LAST_STOPPED, STW_LAST_THREAD, STW_LAST_THROTTLED, STW_REASON, STW_REQUESTED_AT,
            STW_REQUESTER_RUN_QUEUE, STW_REQUESTER_THROTTLED,
        },
    },
};

pub const NAME: &str = "go.stw";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::GoStw, HitKind::GoStop],
    series: &[Series::GoStop],
    always: true,
    needs: &[
        Need {
            of: run_queue::NAME,
            lost: "whether the last thread to stop waited for a core is not reported",
        },
        // The GC's stops are part of its cycles' traces.
        Need {
            of: gc::NAME,
            lost: "the GC's stops have no spans",
        },
    ],
    events: &[EventKind::of::<Stop>()],
    ..Signal::new(NAME, &DEFS, metrics)
};

/// Where stops of the world end, and where Ps stop.
pub fn plan(image: &GoImage, plan: &mut Plan) {
    let signal = NAME;
    let coverage = match usable(image.sites.get(&GoHook::StartWorld), &image.arch.go_arguments()) {
        _ if plan.go.world_stop == NONE => {
            Coverage::Lacking("the runtime keeps the reason of a stop only since go1.22".to_owned())
        }
        Ok(site) => {
            plan.probes.push(Probe {
                signal,
                also: None,
                essential: true,
                program: "go_stw",
                site,
            });
            match (plan.go.world_stop, usable(image.sites.get(&GoHook::StopProcessor), &[])) {
                (START, _) => {
                    Coverage::Partial("the runtime keeps the time when all Ps had stopped only since go1.23".to_owned())
                }
                (_, Ok(site)) => {
                    plan.probes.push(Probe {
                        signal,
                        also: None,
                        essential: false,
                        program: "go_stop",
                        site,
                    });
                    Coverage::Full
                }
                (_, Err(reason)) => Coverage::Partial(format!("the last to stop is not observed: {reason}")),
            }
        }
        Err(reason) => Coverage::Off(reason),
    };
    plan.set(signal, coverage);
}

/// runtime.stwReasonStrings (go1.22 to go1.27, runtime/proc.go): the same numbers in all of them.
const REASONS: [&str; 12] = [
    "unknown",
    "GC mark termination",
    "GC sweep termination",
    "write heap dump",
    "goroutine profile",
    "goroutine profile cleanup",
    "all goroutines stack trace",
    "read mem stats",
    "AllThreadsSyscall",
    "GOMAXPROCS",
    "start trace",
    "stop trace",
];

fn reason(number: u32) -> String {
    let known = REASONS.get(number as usize);
    known.map_or_else(|| format!("reason {number}"), |name| (*name).to_owned())
}

impl SignalEvent for Stop {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.extend(self::spans(self, target, state));
    }

    fn throttled(&self) -> u64 {
        self.last_off_cpu.throttled + self.requester_off_cpu.throttled
    }

    fn is_part(&self) -> bool {
        [MARK_TERMINATION, SWEEP_TERMINATION].contains(&self.reason)
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            starts: vec![self.startpc, self.last_startpc],
            places: places(self),
        }
    }
}

/// A stop as a trace of its own; those of the GC are parts of its cycle, which comes later.
pub fn spans(stop: &Stop, target: &Target, state: &mut State) -> Vec<Span> {
    state.stops.note_last(stop, || last_place(stop, target));
    if stop.reason == SWEEP_TERMINATION && stop.forced != 0 {
        let place = place(&stop.frames, target);
        state
            .stops
            .note_forced(place.unwrap_or_else(|| started_with(stop.startpc, target)));
    }
    if stop.is_part() {
        state.stops.keep(*stop);
        return Vec::new();
    }
    let reason = reason(stop.reason);
    let mut attributes = requester(stop, target);
    attributes.push(Attribute::new(STW_REASON, reason.clone()));
    attributes.extend(last_to_stop(stop, target, state));
    let times = (MonoNs(stop.requested), MonoNs(stop.end));
    let root = Span::root(
        format!("go.stw {reason}"),
        SpanKind::Internal,
        times.0,
        times.1,
        attributes,
    );
    let parts = parts(stop, &root);
    std::iter::once(root).chain(parts).collect()
}

/// Stopping, and stopped; nothing where the version does not say when all had stopped.
pub fn parts(stop: &Stop, whole: &Span) -> Vec<Span> {
    if stop.stopped == 0 {
        return Vec::new();
    }
    let [requested, stopped, end] = [stop.requested, stop.stopped, stop.end].map(MonoNs);
    vec![
        whole.child("go.stw.stopping", requested, stopped, Vec::new()),
        whole.child("go.stw.stopped", stopped, end, Vec::new()),
    ]
}

/// The goroutine that requested it.
fn requester(stop: &Stop, target: &Target) -> Vec<Attribute> {
    if stop.goid == 0 {
        return Vec::new();
    }
    let mut attributes = vec![Attribute::new(GOROUTINE_ID, stop.goid as i64)];
    attributes.extend(function_attributes(stop.startpc, target));
    if let Some(frame) = target.go_frame(stop.gopc.saturating_sub(1)) {
        attributes.push(Attribute::new(GOROUTINE_CREATOR_FUNCTION, frame.function));
    }
    attributes.extend(place(&stop.frames, target).map(|place| Attribute::new(STW_REQUESTED_AT, place)));
    attributes
}

/// Every address whose place in the source a stop's spans may name, but for those of the functions that goroutines were started with.
fn places(stop: &Stop) -> Vec<u64> {
    let own = [stop.gopc.saturating_sub(1), stop.last_top.saturating_sub(1)];
    own.into_iter()
        .chain(lines(&stop.frames))
        .chain(lines(&stop.last_frames))
        .collect()
}

/// What the frames of a stack are at: all but the first are return addresses, and the call is just before them.
fn lines(frames: &[u64]) -> impl Iterator<Item = u64> {
    let frames = frames.iter().take_while(|pc| **pc != 0);
    frames.enumerate().map(|(at, pc)| pc - u64::from(at > 0))
}

/// Where the user's part of a stack is at: its innermost function that is not the runtime's own.
fn place(frames: &[u64], target: &Target) -> Option<String> {
    let known = lines(frames).filter_map(|pc| target.go_frame(pc));
    let frame = known.into_iter().find(|frame| !is_runtime(frame))?;
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    Some(format!("{} ({file}:{})", frame.function, frame.line))
}

fn is_runtime(frame: &Frame) -> bool {
    frame.function.starts_with("runtime.")
}

/// The P that stopped last: the goroutine that gave way there, if one did, and what its thread did meanwhile.
pub fn last_to_stop(stop: &Stop, target: &Target, state: &State) -> Vec<Attribute> {
    let mut attributes = thread(stop, state);
    if stop.last_goid == 0 {
        return attributes;
    }
    attributes.push(Attribute::new(STW_LAST_ID, stop.last_goid as i64));
    let last = started_with(stop.last_startpc, target);
    attributes.push(Attribute::new(STW_LAST_FUNCTION, last));
    attributes.extend(last_place(stop, target).map(|place| Attribute::new(STW_LAST_AT, place)));
    attributes
}

/// Where the goroutine was that stopped last.
fn last_place(stop: &Stop, target: &Target) -> Option<String> {
    // One that gave way at a function's begin did not do so before: what it did is the caller's.
    let began = target
        .go_frame(stop.last_frames[0])
        .is_some_and(|frame| !is_runtime(&frame));
    let caller = began
        .then(|| place(&[stop.last_top.saturating_sub(1)], target))
        .flatten();
    caller.or_else(|| place(&stop.last_frames, target))
}

/// The thread whose P stopped last, and how long it and the requester's were off their cores.
fn thread(stop: &Stop, state: &State) -> Vec<Attribute> {
    if stop.last_tid == 0 {
        return Vec::new();
    }
    let mut attributes = vec![
        Attribute::new(STW_LAST_THREAD, i64::from(stop.last_tid)),
        Attribute::new(
            STW_LAST_STOPPED,
            stop.last_stopped.saturating_sub(stop.requested) as i64,
        ),
    ];
    if stop.split != 0 {
        let (last, requester) = (stop.last_off_cpu, stop.requester_off_cpu);
        let times = [
            (STW_LAST_RUN_QUEUE, last.run_queue),
            (STW_LAST_THROTTLED, last.throttled),
            (STW_LAST_ASLEEP, last.blocked),
            (STW_REQUESTER_RUN_QUEUE, requester.run_queue),
            (STW_REQUESTER_THROTTLED, requester.throttled),
        ];
        attributes.extend(times.map(|(key, time)| Attribute::new(key, time as i64)));
        attributes.extend(quota::attribute(state, last.throttled + requester.throttled));
    }
    attributes
}

/// Why a cycle began, and on whose goroutine (go1.26, runtime/mgc.go, gcTrigger).
pub fn trigger(stop: &Stop, target: &Target) -> Vec<Attribute> {
    let requester = requester(stop, target);
    let by_time = |attribute: &Attribute| *attribute == Attribute::new(GOROUTINE_FUNCTION, "runtime.forcegchelper");
    let trigger = match stop.forced {
        0 if requester.iter().any(by_time) => "time",
        0 => "heap",
        _ => "forced",
    };
    let trigger = Attribute::new(GC_TRIGGER, trigger);
    std::iter::once(trigger).chain(requester).collect()
}

/// How long the world stood still, by reason.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    distribution(&STW_DURATION, target, state, Series::GoStop, reading, |number| {
        vec![Attribute::new(STW_REASON, reason(number))]
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use agent_common::thread::run_queue::OffCpu;

    use crate::{discover::Process, telemetry::process::quota::CGROUP_PATH};

    fn stop(reason: u32, requested: u64) -> Stop {
        Stop {
            requested,
            stopped: requested + 10,
            end: requested + 30,
            reason,
            ..Stop::default()
        }
    }

    fn target() -> Target {
        let process = Process::read(std::process::id()).unwrap();
        Target::new(process, 1, Arc::default(), MonoNs(0))
    }

    #[test]
    fn a_stop_has_its_two_parts_and_the_gcs_wait_for_their_cycle() {
        let (target, mut state) = (target(), State::default());
        let spans = spans(&stop(4, 1000), &target, &mut state);
        let found: Vec<_> = spans
            .iter()
            .map(|span| (span.name.as_ref(), span.start.0, span.end.0))
            .collect();
        let expected = [
            ("go.stw goroutine profile", 1000, 1030),
            ("go.stw.stopping", 1000, 1010),
            ("go.stw.stopped", 1010, 1030),
        ];
        assert_eq!(found, expected);
        assert!(super::spans(&stop(SWEEP_TERMINATION, 5_000_000), &target, &mut state).is_empty());
        let within = |reason, begin, end| state.stops.within(reason, begin, end).map(|stop| stop.requested);
        assert_eq!(within(SWEEP_TERMINATION, 5_000_100, 5_001_000), Some(5_000_000));
        assert_eq!(within(MARK_TERMINATION, 5_000_100, 5_001_000), None);
        assert_eq!(within(SWEEP_TERMINATION, 7_000_000, 8_000_000), None);
    }

    #[test]
    fn a_late_thread_is_told_where_no_goroutine_is() {
        let target = target();
        let state = State {
            quotas: Some(quota::Quotas::recorded("/a".to_owned())),
            ..State::default()
        };
        let off = |run_queue, throttled| OffCpu {
            run_queue,
            throttled,
            blocked: 0,
        };
        let of = |last_tid, split, last_off_cpu| {
            let stop = Stop {
                last_tid,
                split,
                last_off_cpu,
                last_stopped: 1600,
                requester_off_cpu: off(5, 0),
                ..stop(SWEEP_TERMINATION, 1000)
            };
            last_to_stop(&stop, &target, &state)
        };
        assert_eq!(of(0, 1, off(1, 1)), []);
        let unsplit = [
            Attribute::new(STW_LAST_THREAD, 7),
            Attribute::new(STW_LAST_STOPPED, 600),
        ];
        assert_eq!(of(7, 0, off(0, 0)), unsplit);
        let waited = of(7, 1, off(400, 0));
        assert!(waited.contains(&Attribute::new(STW_LAST_RUN_QUEUE, 400)), "{waited:?}");
        assert!(
            waited.contains(&Attribute::new(STW_REQUESTER_RUN_QUEUE, 5)),
            "{waited:?}"
        );
        let path = Attribute::new(CGROUP_PATH, "/a".to_owned());
        assert!(!waited.contains(&path) && of(7, 1, off(0, 9)).contains(&path));
    }

    #[test]
    fn a_forced_cycle_is_told_from_one_that_the_heap_began() {
        let target = target();
        let trigger_of = |forced| {
            let stop = Stop {
                forced,
                ..stop(SWEEP_TERMINATION, 1)
            };
            trigger(&stop, &target)
        };
        assert_eq!(trigger_of(0), [Attribute::new(GC_TRIGGER, "heap")]);
        assert_eq!(trigger_of(1), [Attribute::new(GC_TRIGGER, "forced")]);
    }
}
