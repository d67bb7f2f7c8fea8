//! Polls of tasks: how long each took, per future; which were slow, and where the thread's worker was busy.

use std::collections::{BTreeMap, HashMap};

use agent_common::{
    histogram::Series,
    hits::HitKind,
    target::{POLLS_RETURN, WORKER_OTHER},
    tokio::poll::{BLOCKING, Poll, UNENDED},
};

use super::{Site, sites, wake};

use crate::{
    aggregate::store::Reading,
    attach::plan::{Failure, Plan, Probe, coverage, usable},
    inspect::{ArgLocation, ProbeSite, SiteError, TaskKind, TaskVtable, TokioHook, TokioImage, X86Register},
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signal::Coverage,
    signals::events::{EventKind, SignalEvent},
    signals::points::{count, distribution, metric, slow_span},
    signals::summary::{Summary, largest},
    signals::{Check, Signal, State},
    target::Target,
    telemetry::{
        OVERFLOW,
        thread::{THREAD_ID, THREAD_NAME},
        tokio::{
            TOKIO_TASK_FUTURE, TOKIO_TASK_ID,
            poll::{BLOCKING_DURATION, BUSY_DURATION, DEFS, POLL_DURATION, POLL_UNENDED, POLL_UNMATCHED},
        },
    },
};

pub const NAME: &str = "tokio.poll";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::TokioPollBegin, HitKind::TokioPollEnd, HitKind::TokioPark],
    series: &[
        Series::TokioPoll,
        Series::TokioUnended,
        Series::TokioUnmatched,
        Series::TokioBlocking,
        Series::TokioBusy,
    ],
    start: Some(|_, _, thresholds, kernel| kernel.slow_poll = thresholds.poll),
    events: &[EventKind::of::<Poll>()],
    summary: Some(|target, _, reading| summary(target, reading)),
    check: Some(Check {
        what: "polls",
        count: |target, _, reading| reading.whole(target.id, Series::TokioPoll).count(),
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

/// The programs that see a poll end: in the functions for that, or where it returns.
const POLL_END: &str = "tokio_poll_end";
const POLL_RETURN: &str = "tokio_poll_return";

/// Those of some probes that see polls end.
pub fn ends(probes: &[Probe]) -> impl Iterator<Item = &Probe> {
    probes
        .iter()
        .filter(|probe| [POLL_END, POLL_RETURN].contains(&probe.program))
}

/// Where polls return, if that is what shows their ends.
fn returns(image: &TokioImage) -> impl Iterator<Item = ProbeSite> {
    let sites = image.returns.iter();
    sites.filter_map(|site| usable(Some(site), &[]).ok())
}

const HEADER: [ArgLocation; 1] = [ArgLocation::Register(X86Register::Rdi)];

/// Types of tasks by their vtables, while some probes are `missing`.
pub fn types(image: &TokioImage, bias: u64, missing: &[Probe]) -> Vec<(u64, u32)> {
    // Types of one name are one: they would be exported with the same attributes.
    let mut ids = HashMap::new();
    let of = |vtable: &TaskVtable| {
        let next = ids.len() as u32 + 1;
        let mut id = *ids.entry((vtable.future.label(), vtable.kind)).or_insert(next);
        if vtable.kind == TaskKind::Blocking {
            id |= BLOCKING;
        }
        if !has_end(image, vtable, missing) {
            id |= UNENDED;
        }
        (vtable.vaddr.wrapping_add(bias), id)
    };
    image.vtables.iter().map(of).collect()
}

/// What is to say of ends of polls that are not seen since probes are `missing`; None where there are none.
pub fn lost_ends(image: &TokioImage, missing: &[Probe]) -> Option<Failure> {
    let tasks = || image.vtables.iter().filter(|vtable| vtable.kind == TaskKind::Async);
    let is_lost = |vtable: &&TaskVtable| has_end(image, vtable, &[]) && !has_end(image, vtable, missing);
    let (of, lost) = (tasks().count(), tasks().filter(is_lost).count());
    (lost > 0).then(|| Failure {
        signal: NAME,
        essential: false,
        reason: format!(
            "some ends of polls of {lost} of {of} types of tasks are not visible, as these probes are not attached: their polls are counted, but not timed"
        ),
    })
}

/// What the signal loses when the kernel's map had no space for `missing` types of tasks.
pub fn without_types(plan: &Plan, missing: usize) -> Option<Failure> {
    (missing > 0).then(|| Failure {
        signal: NAME,
        essential: false,
        reason: format!(
            "{missing} of {} types of tasks are not distinguished, nor whether they block: the kernel map is full",
            plan.types.len()
        ),
    })
}

/// Whether the ends of polls of a type are seen: it calls functions for them, and these have places, none of which is that of a probe
/// that is `missing`.
fn has_end(image: &TokioImage, vtable: &TaskVtable, missing: &[Probe]) -> bool {
    let is_missing = |site: &ProbeSite| ends(missing).any(|probe| probe.site.file_offset == site.file_offset);
    let mut returns = returns(image).peekable();
    if returns.peek().is_some() {
        // Which of them runs a type is not known.
        return !returns.any(|site| is_missing(&site));
    }
    let is_there = |hook| {
        let usable = sites(image, hook)
            .iter()
            .filter_map(|site| usable(Some(site), &HEADER).ok());
        let mut missing = usable.map(|site| is_missing(&site)).peekable();
        missing.peek().is_some() && !missing.any(|missing| missing)
    };
    let pending = vtable.kind == TaskKind::Blocking || is_there(TokioHook::PollEndPending);
    vtable.calls_poll_end && pending && is_there(TokioHook::PollEndComplete)
}

/// No poll is seen to end, as tokio.poll was left out: which task a thread polls is not known then.
pub fn without_ends(plan: &mut Plan) {
    for (_, id) in &mut plan.types {
        *id |= UNENDED;
    }
    let futures = std::mem::take(&mut plan.futures).into_iter();
    plan.futures = futures.map(|(id, name)| (id | UNENDED, name)).collect();
}

/// Where polls begin and end, and workers park.
pub fn plan(image: &TokioImage, plan: &mut Plan) {
    let signal = NAME;
    let mut others = Vec::new();
    let find = |sites: &mut dyn Iterator<Item = &Site>, program, arguments: &[ArgLocation], essential: bool| {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        for site in sites {
            match usable(Some(site), arguments) {
                Ok(site) => found.push(Probe {
                    signal,
                    also: essential.then_some(wake::NAME),
                    essential,
                    program,
                    site,
                }),
                Err(reason) => refused.push(reason),
            }
        }
        (found, refused)
    };
    let (mut begins, mut missing) = find(
        &mut sites(image, TokioHook::PollBegin).iter(),
        "tokio_poll_begin",
        &HEADER,
        true,
    );
    if begins.is_empty() || !missing.is_empty() {
        // Each type's own function is its begin as well, at one probe a type.
        let (polls, refused) = find(
            &mut image.polls.iter().map(|poll| &poll.site),
            "tokio_poll_begin",
            &HEADER,
            true,
        );
        if refused.is_empty() && !polls.is_empty() {
            (begins, missing) = (polls, Vec::new());
        } else if begins.is_empty() {
            begins = polls;
            missing.extend(refused);
        }
        if begins.is_empty() {
            let none = "the begin of polls was not looked for in this binary".to_owned();
            missing.extend(Some(none).filter(|_| missing.is_empty()));
            return plan.set(signal, Coverage::Off(missing.join("; ")));
        }
    }
    let mut unseen = Vec::new();
    others.extend(returns(image).map(|site| Probe {
        signal,
        also: None,
        essential: false,
        program: POLL_RETURN,
        site,
    }));
    let functions: &[TokioHook] = if others.is_empty() {
        &[TokioHook::PollEndPending, TokioHook::PollEndComplete]
    } else {
        plan.flags |= POLLS_RETURN;
        &[]
    };
    for hook in functions.iter().copied() {
        let (found, refused) = find(&mut sites(image, hook).iter(), POLL_END, &HEADER, false);
        others.extend(found);
        let inlined = |site: &Site| matches!(site, Err(SiteError::NoSuchFunction { .. }));
        if !sites(image, hook).iter().all(inlined) {
            unseen.extend(refused);
        }
    }
    let (found, refused) = find(&mut sites(image, TokioHook::Park).iter(), "tokio_park", &[], false);
    others.extend(found);
    missing.extend(refused);
    missing.extend(without_end(image, &unseen));
    if image.rejected_vtables > 0 {
        missing.push(format!(
            "{} places refer to poll functions but are no task vtable as known",
            image.rejected_vtables
        ));
    }
    plan.probes.extend(begins);
    plan.probes.extend(others);
    plan.set(signal, coverage(missing));
}

/// What is to say of types of tasks the ends of whose polls are not seen; `reasons` are those of functions that are there.
fn without_end(image: &TokioImage, reasons: &[String]) -> Option<String> {
    let tasks = || image.vtables.iter().filter(|vtable| vtable.kind == TaskKind::Async);
    let (of, unended) = (
        tasks().count(),
        tasks().filter(|vtable| !has_end(image, vtable, &[])).count(),
    );
    let (why, way_out) = if reasons.is_empty() {
        (
            "the compiler inlined them, as with LTO".to_owned(),
            "`lto = false` and `opt-level = 3`",
        )
    } else {
        (reasons.join("; "), "`opt-level = 3`")
    };
    (unended > 0).then(|| {
        format!(
            "some ends of polls of {unended} of {of} types of tasks are not visible ({why}): their polls are counted, but not timed. A build with {way_out} in its profile has both"
        )
    })
}

impl SignalEvent for Poll {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.push(span(self, target, state));
    }
}

/// A slow poll.
pub fn span(poll: &Poll, target: &Target, state: &mut State) -> Span {
    let thread = poll.thread.split(|byte| *byte == 0).next().unwrap_or_default();
    let attributes = vec![
        Attribute::new(TOKIO_TASK_ID, poll.task_id as i64),
        Attribute::new(TOKIO_TASK_FUTURE, target.future(poll.future).to_owned()),
        Attribute::new(THREAD_ID, i64::from(poll.header.tid)),
        Attribute::new(THREAD_NAME, String::from_utf8_lossy(thread).into_owned()),
    ];
    let name = format!("poll {}", target.future(poll.future));
    let times = (MonoNs(poll.since), MonoNs(poll.header.time));
    slow_span(
        state,
        (Series::TokioPoll, poll.future),
        name,
        SpanKind::Internal,
        times,
        attributes,
    )
}

/// Poll durations per future, blocking-pool closures, and time that workers were busy.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let future = |id: u32| vec![Attribute::new(TOKIO_TASK_FUTURE, target.future(id).to_owned())];
    let mut metrics = distribution(&POLL_DURATION, target, state, Series::TokioPoll, reading, future);
    metrics.extend(distribution(
        &BLOCKING_DURATION,
        target,
        state,
        Series::TokioBlocking,
        reading,
        future,
    ));
    metrics.extend(distribution(
        &BUSY_DURATION,
        target,
        state,
        Series::TokioBusy,
        reading,
        |worker| {
            vec![match worker {
                WORKER_OTHER => Attribute::new(OVERFLOW, true),
                tid => Attribute::new(THREAD_ID, i64::from(tid)),
            }]
        },
    ));
    metrics.extend(count(&POLL_UNMATCHED, target, Series::TokioUnmatched, reading));
    metrics.extend(unended(target, state, reading));
    metrics
}

/// How long polls took, all and per future, and how long workers were busy.
fn summary(target: &Target, reading: &Reading) -> Summary {
    let polls = largest(reading, target.id, Series::TokioPoll);
    let unended: u64 = reading
        .counts(target.id, Series::TokioUnended)
        .map(|(_, count)| count)
        .sum();
    Summary::default()
        .note(
            0,
            (unended > 0).then(|| format!("polls whose end was not seen: {unended}")),
        )
        .whole(1, "task poll, all", reading.whole(target.id, Series::TokioPoll))
        .whole(1, "worker busy", reading.whole(target.id, Series::TokioBusy))
        .split(2, polls, |id| format!("poll {}", target.future(id)))
}

/// Polls of types whose ends are not all seen, per future; types of the same name are one.
fn unended(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    if state.is_off(NAME) {
        // They begin for another signal.
        return Vec::new();
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, count) in reading.counts(target.id, Series::TokioUnended) {
        *counts.entry(target.future(id)).or_default() += count;
    }
    let points = counts.into_iter().map(|(future, count)| {
        let attributes = vec![Attribute::new(TOKIO_TASK_FUTURE, future.to_owned())];
        target.sum(count, reading.time, attributes)
    });
    metric(&POLL_UNENDED, points.collect())
}
