//! How long goroutines wait between runnable and running; the slow ones with who they are and why they had waited before.

use agent_common::{
    go::sched::{Source, Wait},
    histogram::Series,
};

use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signals::{count, distribution, slow_span},
    target::Target,
    telemetry::{
        go::{
            GOROUTINE_CREATOR_FILE, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_CREATOR_LINE, GOROUTINE_FUNCTION,
            GOROUTINE_ID, GOROUTINE_PARENT_ID, GOROUTINE_RUNNABLE_DURATION, GOROUTINE_RUNNABLE_SOURCE,
            GOROUTINE_SYSTEM, GOROUTINE_UNSTAMPED, GOROUTINE_WAIT_REASON,
        },
        thread::THREAD_ID,
    },
};

pub const NAME: &str = "go.sched";

/// A slow wait.
pub fn span(wait: &Wait, target: &mut Target) -> Span {
    let mut attributes = vec![
        Attribute::new(GOROUTINE_ID, wait.goid as i64),
        Attribute::new(THREAD_ID, i64::from(wait.header.tid)),
        Attribute::new(GOROUTINE_RUNNABLE_SOURCE, source(wait.source)),
        Attribute::new(GOROUTINE_WAIT_REASON, target.wait_reason(wait.wait_reason)),
    ];
    if wait.parent_goid != 0 {
        attributes.push(Attribute::new(GOROUTINE_PARENT_ID, wait.parent_goid as i64));
    }
    let started = target.go_frame(wait.startpc);
    let started_with = started.as_ref().map(|frame| frame.function.clone());
    if let Some(function) = &started_with {
        attributes.push(Attribute::new(GOROUTINE_FUNCTION, function.clone()));
        attributes.push(Attribute::new(GOROUTINE_SYSTEM, is_system(function)));
    }
    // gopc is the return address of the call: the statement is just before it.
    if let Some(creator) = target.go_frame(wait.gopc.saturating_sub(1)) {
        attributes.push(Attribute::new(GOROUTINE_CREATOR_FUNCTION, creator.function));
        attributes.push(Attribute::new(GOROUTINE_CREATOR_FILE, creator.file));
        attributes.push(Attribute::new(GOROUTINE_CREATOR_LINE, i64::from(creator.line)));
    }
    let name = format!("runnable {}", started_with.as_deref().unwrap_or("goroutine"));
    let times = (MonoNs(wait.since), MonoNs(wait.header.time));
    slow_span(
        target,
        (Series::GoRunnable, 0),
        name,
        SpanKind::Internal,
        times,
        attributes,
    )
}

/// Whether a goroutine started with `function` is one of the runtime's own (go1.26, runtime/traceback.go,
/// isSystemGoroutine: all of package runtime but main and handleAsyncEvent; of the finalizer's, which is the user's while it
/// calls a finalizer, nothing more is known here).
fn is_system(function: &str) -> bool {
    function.starts_with("runtime.") && !["runtime.main", "runtime.handleAsyncEvent"].contains(&function)
}

/// The distribution of all waits, and starts whose runnable moment was not seen.
pub fn metrics(target: &Target, reading: &Reading) -> Vec<Metric> {
    let mut metrics = distribution(
        &GOROUTINE_RUNNABLE_DURATION,
        target,
        Series::GoRunnable,
        reading,
        |_| Vec::new(),
    );
    metrics.extend(count(&GOROUTINE_UNSTAMPED, target, Series::GoUnstamped, reading));
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
    use super::*;

    #[test]
    fn the_runtimes_own_goroutines_are_told_apart() {
        for (function, expected) in [
            ("runtime.gcBgMarkWorker", true),
            ("runtime.gcBgMarkStartWorkers.gowrap1", true),
            ("runtime.main", false),
            ("main.spin.func1", false),
            ("runtime/trace.Start.func1", false),
        ] {
            assert_eq!(is_system(function), expected, "{function}");
        }
    }
}
