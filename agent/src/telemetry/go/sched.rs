//! Time of goroutines: running, runnable, waiting.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, OVERFLOW, SpanDef,
    go::{
        GC_MAX_PROCS, GOROUTINE_CREATOR_FILE, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_CREATOR_LINE, GOROUTINE_FUNCTION,
        GOROUTINE_ID, GOROUTINE_STATE, GOROUTINE_SYSTEM, GOROUTINE_WAIT_REASON,
    },
    process::quota::CGROUP_PATH,
    thread::THREAD_ID,
};

pub const GOROUTINE_PARENT_ID: &str = "go.goroutine.parent.id";
pub const GOROUTINE_RUNNABLE_SOURCE: &str = "go.goroutine.runnable.source";
pub const GOROUTINE_CAUSE: &str = "go.goroutine.cause";
pub const GOROUTINE_WAKER_ID: &str = "go.goroutine.waker.id";
pub const GOROUTINE_WAKER_FUNCTION: &str = "go.goroutine.waker.function";
pub const GOROUTINE_WAKERS: &str = "go.goroutine.wakers";
pub const RUNNABLE_QUEUE: &str = "go.goroutine.runnable.queue_length";
pub const PROCESSOR_IDLE: &str = "go.processor.idle";
pub const RUNNABLE_RUN_QUEUE: &str = "go.goroutine.runnable.run_queue_ns";
pub const RUNNABLE_THROTTLED: &str = "go.goroutine.runnable.throttled_ns";

def!(
    GOROUTINE_RUNNABLE_DURATION,
    "go.goroutine.runnable.duration",
    "s",
    ExponentialHistogram,
    &[],
    "Time of goroutines from runnable to running, every switch.",
    "uprobes: runtime.execute, runqput, goschedImpl, exitsyscall, netpollready, injectglist"
);
def!(
    GOROUTINE_UNSTAMPED,
    "go.goroutine.runnable.unstamped",
    "{switch}",
    Counter,
    &[],
    "Goroutine starts for which the time of becoming runnable is not known: the runtime's own workers, which it starts directly, and waits that began before the probes were attached.",
    "uprobe: runtime.execute"
);
def!(
    GOROUTINE_WAIT_DURATION,
    "go.goroutine.wait.duration",
    "s",
    ExponentialHistogram,
    &[GOROUTINE_WAIT_REASON],
    "Time of goroutines from waiting to runnable, by wait reason. Waits that are longer than a window of the budget are not observed.",
    "uprobes: runtime.park_m to runqput, netpollready, injectglist"
);
def!(
    GOROUTINE_TIME,
    "go.goroutine.time",
    "ns",
    Counter,
    &[
        GOROUTINE_FUNCTION,
        GOROUTINE_SYSTEM,
        GOROUTINE_STATE,
        GOROUTINE_CAUSE,
        GOROUTINE_WAIT_REASON,
        CGROUP_PATH,
        OVERFLOW
    ],
    "Time of goroutines by start function, state and cause.",
    "uprobes: as go.goroutine.runnable.duration, and runtime.park_m, goexit0; tp_btf: sched_switch, sched_wakeup"
);
def!(
    GOROUTINE_LONG_RUNS,
    "go.goroutine.long_runs",
    "{run}",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Runs, system calls included, of 10 ms or more: after that time sysmon requests preemption.",
    "uprobes: runtime.execute to park_m, goschedImpl, goexit0"
);
def!(
    GOROUTINE_PREEMPTIONS,
    "go.goroutine.preemptions",
    "{preemption}",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Running goroutines that yielded or were preempted.",
    "uprobe: runtime.goschedImpl"
);
def!(
    GOROUTINE_ENDED,
    "go.goroutine.ended",
    "{goroutine}",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Goroutines that ended, including those that lived too shortly for a scan of runtime.allgs. This plus the growth of go.goroutine.alive is the number of goroutines created.",
    "uprobe: runtime.goexit0"
);

pub static DEFS: Defs = Defs {
    metrics: &[
        &GOROUTINE_RUNNABLE_DURATION,
        &GOROUTINE_UNSTAMPED,
        &GOROUTINE_WAIT_DURATION,
        &GOROUTINE_TIME,
        &GOROUTINE_LONG_RUNS,
        &GOROUTINE_PREEMPTIONS,
        &GOROUTINE_ENDED,
    ],
    spans: &[
        SpanDef {
            name: "runnable {function}",
            description: "A goroutine waited longer than --slow-wait from runnable to running.",
            source: "uprobes: as go.goroutine.runnable.duration",
            attributes: &[
                GOROUTINE_ID,
                GOROUTINE_PARENT_ID,
                GOROUTINE_FUNCTION,
                GOROUTINE_SYSTEM,
                GOROUTINE_CREATOR_FUNCTION,
                GOROUTINE_CREATOR_FILE,
                GOROUTINE_CREATOR_LINE,
                GOROUTINE_WAIT_REASON,
                GOROUTINE_WAKER_ID,
                GOROUTINE_WAKER_FUNCTION,
                GOROUTINE_WAKERS,
                GOROUTINE_RUNNABLE_SOURCE,
                RUNNABLE_QUEUE,
                PROCESSOR_IDLE,
                GC_MAX_PROCS,
                RUNNABLE_RUN_QUEUE,
                RUNNABLE_THROTTLED,
                GOROUTINE_CAUSE,
                CGROUP_PATH,
                THREAD_ID,
            ],
        },
        SpanDef {
            name: "wait {function}",
            description: "A goroutine waited longer than --slow-wait until it ran, for a reason other than idleness. It has two parts: the wait with its reason, and `runnable {function}`. Links: the waits of its wakers.",
            source: "uprobes: as go.goroutine.wait.duration",
            attributes: &[
                GOROUTINE_ID,
                GOROUTINE_PARENT_ID,
                GOROUTINE_FUNCTION,
                GOROUTINE_SYSTEM,
                GOROUTINE_CREATOR_FUNCTION,
                GOROUTINE_CREATOR_FILE,
                GOROUTINE_CREATOR_LINE,
                GOROUTINE_WAIT_REASON,
                GOROUTINE_WAKER_ID,
                GOROUTINE_WAKER_FUNCTION,
                GOROUTINE_WAKERS,
                THREAD_ID,
            ],
        },
    ],
    attributes: &[
        AttributeDef {
            key: GOROUTINE_PARENT_ID,
            kind: "int",
            description: "goid of the creator; go1.21 and later.",
        },
        AttributeDef {
            key: GOROUTINE_RUNNABLE_SOURCE,
            kind: "string",
            description: "How it became runnable: `ready`, `netpoll`, `yield_or_preempt`, `syscall_exit`, `runtime_list`.",
        },
        AttributeDef {
            key: GOROUTINE_CAUSE,
            kind: "string",
            description: "Running: `on_core`, `asleep` (its thread sleeps in the kernel), `run_queue` (its thread waits for a core), `throttled` (the cgroup's quota throttles its thread). Runnable: `no_processor` (no P is idle), `idle_processor` (a P is idle and has to be woken), `run_queue` and `throttled` (the P's thread is off-CPU). `unsplit`: the kernel's hooks did not count then.",
        },
        AttributeDef {
            key: GOROUTINE_WAKER_ID,
            kind: "int",
            description: "goid of the goroutine that woke it; absent when the runtime did (a timer, the network poller).",
        },
        AttributeDef {
            key: GOROUTINE_WAKER_FUNCTION,
            kind: "string",
            description: "Start function of the goroutine that woke it.",
        },
        AttributeDef {
            key: GOROUTINE_WAKERS,
            kind: "string[]",
            description: "Function and goid of its waker, of the waker's waker, and so on; three at most.",
        },
        AttributeDef {
            key: RUNNABLE_QUEUE,
            kind: "int",
            description: "Goroutines before it in the run queue of its P.",
        },
        AttributeDef {
            key: PROCESSOR_IDLE,
            kind: "int",
            description: "Ps that were idle when it became runnable.",
        },
        AttributeDef {
            key: RUNNABLE_RUN_QUEUE,
            kind: "int",
            description: "Part of the time from runnable to running in which its P's thread waited for a core, ns.",
        },
        AttributeDef {
            key: RUNNABLE_THROTTLED,
            kind: "int",
            description: "Part of the time from runnable to running in which the cgroup's quota throttled its P's thread, ns.",
        },
    ],
};
