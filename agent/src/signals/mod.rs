//! What each signal means: its attach points, its events as spans, its histograms as metrics. One signal a file, under the
//! same path in `agent-common` and `agent-ebpf`; this registry is the only list of them.

pub mod go;
pub mod net;
pub mod plan;
pub mod points;
pub mod process;
pub mod thread;
pub mod tokio;

use crate::{
    aggregate::store::Reading,
    intake::Event,
    model::{Metric, Span},
    signal::Hook,
    target::Target,
};

/// Signals of plane 1, with the alternatives they can be had by.
pub static KERNEL_HOOKS: [Hook; 5] = [
    process::exec::HOOK,
    net::connect::HOOK,
    net::request::HOOK,
    thread::run_queue::HOOK,
    thread::syscall::HOOK,
];

/// Names of the signals that `--without` can leave out.
pub const NAMES: [&str; 14] = [
    go::runtime::NAME,
    go::goroutines::NAME,
    go::gc::NAME,
    go::stw::NAME,
    go::assist::NAME,
    go::sched::NAME,
    go::handoff::NAME,
    tokio::poll::NAME,
    tokio::wake::NAME,
    net::connect::NAME,
    net::request::NAME,
    thread::run_queue::NAME,
    thread::syscall::NAME,
    process::quota::NAME,
];

/// Of them, those that are left out unless `--with` adds them.
pub const OPTIONAL: [&str; 1] = [thread::syscall::NAME];

/// Signals whose probes are hit once a GC cycle or a stop of the world: they are in place outside windows too.
pub const ALWAYS: [&str; 2] = [go::gc::NAME, go::stw::NAME];

/// Adds the spans that an event of `target` becomes.
pub fn spans(event: &Event, target: &mut Target, spans: &mut Vec<Span>) {
    process::quota::glance(target, throttled(event));
    match event {
        // A new process is no span: the pipeline looks at it.
        Event::Exec(_) => {}
        Event::GcCycle(cycle) => spans.extend(go::gc::spans(cycle, target)),
        // Waits for its cycle.
        Event::GoAssists(assists) => target.assists = Some(*assists),
        Event::GoStop(stop) => spans.extend(go::stw::spans(stop, target)),
        Event::Syscall(call) => spans.push(thread::syscall::span(call, target)),
        Event::GoWait(wait) => spans.extend(go::sched::spans(wait, target)),
        Event::TokioPoll(poll) => spans.push(tokio::poll::span(poll, target)),
        Event::Connect(connect) => spans.push(net::connect::span(connect, target)),
        Event::Request(request) => spans.push(net::request::span(request, target)),
    }
}

/// Of an event's time, what threads were throttled, ns.
fn throttled(event: &Event) -> u64 {
    match event {
        Event::GoWait(wait) => wait.throttled,
        Event::GoStop(stop) => stop.late_off.throttled + stop.asker_off.throttled,
        _ => 0,
    }
}

/// Whether an event is told with a GC cycle, which comes later.
pub fn is_part(event: &Event) -> bool {
    matches!(event, Event::GoAssists(_)) || go::stw::is_part(event)
}

/// Takes note of a reading before its metrics are made.
pub fn note(target: &mut Target, reading: &Reading) {
    process::quota::look(target);
    go::origins::note(target, reading);
}

/// Everything there is to say of `target` at this reading.
pub fn metrics(target: &Target, reading: &Reading) -> Vec<Metric> {
    [
        go::runtime::metrics(target),
        go::goroutines::metrics(target),
        go::stw::metrics(target, reading),
        go::assist::metrics(target, reading),
        go::sched::metrics(target, reading),
        go::handoff::metrics(target, reading),
        tokio::poll::metrics(target, reading),
        tokio::wake::metrics(target, reading),
        net::connect::metrics(target, reading),
        net::request::metrics(target, reading),
        thread::run_queue::metrics(target, reading),
        thread::syscall::metrics(target, reading),
        process::quota::metrics(target),
    ]
    .into_iter()
    .flatten()
    .collect()
}
