//! The agent's own account: what came, what was lost, what is off.

use super::{
    AttributeDef, Defs,
    Instrument::{Counter, Gauge},
    MetricDef,
};

pub const CAUSE: &str = "whywait.cause";
pub const SIGNAL: &str = "whywait.signal";
pub const COVERAGE: &str = "whywait.coverage";
pub const PROBE: &str = "whywait.probe";
pub const PLANE: &str = "whywait.plane";

pub static EVENTS_RECEIVED: MetricDef = MetricDef {
    name: "whywait.events.received",
    unit: "{event}",
    instrument: Counter,
    description: "Events read from the ring buffer.",
    source: "agent",
    attributes: &[],
};
pub static EVENTS_DROPPED: MetricDef = MetricDef {
    name: "whywait.events.dropped",
    unit: "{event}",
    instrument: Counter,
    description: "Events and values lost, by cause; a cause that never occurred is reported as 0. `…_full`: the map was full, or the target's quota was used up (`whywait.quota.exceeded`).",
    source: "kernel side and agent",
    attributes: &[CAUSE],
};
pub static RECURSION_MISSES: MetricDef = MetricDef {
    name: "whywait.kernel.program.recursion_misses",
    unit: "{run}",
    instrument: Counter,
    description: "Runs of a kernel program that the kernel skipped because the same program was already running on that CPU: what they would have counted is lost. Programs without skipped runs are absent.",
    source: "bpf_prog_info, Linux 5.12 and later",
    attributes: &[PROBE],
};
pub static EXPORT_SENT: MetricDef = MetricDef {
    name: "whywait.export.sent",
    unit: "{item}",
    instrument: Counter,
    description: "Spans and metric points delivered.",
    source: "agent",
    attributes: &[],
};
pub static EXPORT_DROPPED: MetricDef = MetricDef {
    name: "whywait.export.dropped",
    unit: "{item}",
    instrument: Counter,
    description: "Spans, metric points and log records dropped: the queue was full, the endpoint rejected them, has no service for them, or stayed down.",
    source: "agent",
    attributes: &[CAUSE],
};
pub static SIGNAL_STATE: MetricDef = MetricDef {
    name: "whywait.signal.state",
    unit: "1",
    instrument: Gauge,
    description: "1 for each signal of a target; `whywait.coverage` says how much of it there is. Reported under the target's resource.",
    source: "agent",
    attributes: &[SIGNAL, COVERAGE, CAUSE],
};

pub static OVERHEAD_HITS: MetricDef = MetricDef {
    name: "whywait.overhead.hits",
    unit: "{hit}",
    instrument: Counter,
    description: "Hits of probes in the target; reported under the target's resource.",
    source: "kernel side",
    attributes: &[PROBE],
};
pub static OVERHEAD_TIME: MetricDef = MetricDef {
    name: "whywait.overhead.cpu.time",
    unit: "ns",
    instrument: Counter,
    description: "CPU time that these hits cost the target: hits times the cost of a hit, as measured on this machine. Separate: the additional cost of hits after a pause, of all probes on that CPU (`cold_…`) or only of this kind of probe (`cold_kind_…`).",
    source: "kernel side, BPF_ENABLE_STATS, calibration",
    attributes: &[PROBE],
};
pub static WINDOW_OPEN: MetricDef = MetricDef {
    name: "whywait.window.open",
    unit: "ns",
    instrument: Counter,
    description: "Time for which the kernel's hooks on sockets, those on threads, the probe of the runtime's own sample, or the probes of goroutines or tasks, counted. Their figures are multiplied by `whywait.window.time` / `whywait.window.open`. Absent while they always counted.",
    source: "agent",
    attributes: &[PLANE],
};
pub static WINDOW_TIME: MetricDef = MetricDef {
    name: "whywait.window.time",
    unit: "ns",
    instrument: Counter,
    description: "Time that these windows stand for.",
    source: "agent",
    attributes: &[PLANE],
};
pub static WINDOW_CUT: MetricDef = MetricDef {
    name: "whywait.window.cut",
    unit: "{window}",
    instrument: Counter,
    description: "Windows that the kernel programs ended themselves, because the window's cost limit was reached before the governor's next turn.",
    source: "kernel side",
    attributes: &[PLANE],
};
pub static LATENCY_RATIO: MetricDef = MetricDef {
    name: "whywait.overhead.latency.ratio",
    unit: "1",
    instrument: Gauge,
    description: "99th percentile of the latency of requests served that ended while a window was open, divided by that of the others, over the last minutes. 1 if windows do not make requests slower. Absent while there are no windows, or too few requests to compare.",
    source: "agent",
    attributes: &[],
};
pub static RESERVED: MetricDef = MetricDef {
    name: "whywait.budget.reserved",
    unit: "%",
    instrument: Gauge,
    description: "Part of the target's budget that the hooks on threads leave to the probes of goroutines or tasks. It depends on how many were ready and did not run in the last windows. Absent while probes and hooks always counted.",
    source: "agent",
    attributes: &[],
};
pub static FAULTS: MetricDef = MetricDef {
    name: "whywait.agent.faults",
    unit: "{fault}",
    instrument: Counter,
    description: "Failures that did not end the run: `screen`, standard output could not be written; `pictures`, standard output was blocked and summaries were skipped; `log`, the same for standard error; `maps`, the kernel's maps could not be read or changed; `ring`, waiting for the ring buffer failed; `recording`; `late`, a read of a process' memory or of a file did not return in time.",
    source: "agent",
    attributes: &[CAUSE],
};
pub static QUOTA_EXCEEDED: MetricDef = MetricDef {
    name: "whywait.quota.exceeded",
    unit: "{value}",
    instrument: Counter,
    description: "Values over a target's quota in the shared maps: not counted (`histogram_quota`), counted under other peers (`peer_quota`), or not begun, because the target has its share of a map, half or three quarters (`goroutine_quota`, `tokio_woken_quota`, `tokio_thread_quota`, `connect_quota`, `socket_quota`, `thread_quota`, `syscall_quota`). Absent while there are none.",
    source: "kernel side",
    attributes: &[CAUSE],
};
pub static SHED: MetricDef = MetricDef {
    name: "whywait.agent.shed",
    unit: "1",
    instrument: Gauge,
    description: "What the agent gives up to stay within its own limits: 0 nothing, 1 most spans, 2 also most windows, 3 also all windows and new targets.",
    source: "agent",
    attributes: &[CAUSE],
};
pub static CPU_TIME: MetricDef = MetricDef {
    name: "whywait.agent.cpu.time",
    unit: "ns",
    instrument: Counter,
    description: "CPU time of the agent itself.",
    source: "/proc/self/stat",
    attributes: &[],
};
pub static MEMORY: MetricDef = MetricDef {
    name: "whywait.agent.memory.usage",
    unit: "By",
    instrument: Gauge,
    description: "Resident set size of the agent itself.",
    source: "/proc/self/stat",
    attributes: &[],
};

pub static DEFS: Defs = Defs {
    metrics: &[
        &EVENTS_RECEIVED,
        &EVENTS_DROPPED,
        &RECURSION_MISSES,
        &EXPORT_SENT,
        &EXPORT_DROPPED,
        &SIGNAL_STATE,
        &OVERHEAD_HITS,
        &OVERHEAD_TIME,
        &WINDOW_OPEN,
        &WINDOW_TIME,
        &WINDOW_CUT,
        &LATENCY_RATIO,
        &RESERVED,
        &FAULTS,
        &QUOTA_EXCEEDED,
        &SHED,
        &CPU_TIME,
        &MEMORY,
    ],
    spans: &[],
    attributes: &[
        AttributeDef {
            key: CAUSE,
            kind: "string",
            description: "The kind of loss, or what is missing.",
        },
        AttributeDef {
            key: SIGNAL,
            kind: "string",
            description: "A signal's name, as `whywait doctor` prints it.",
        },
        AttributeDef {
            key: COVERAGE,
            kind: "string",
            description: "`full`; `windows`: observed in windows within the budget, and scaled to the whole time; `outdated`: so, but the load has risen to more than four times what it was in the last windows, more than 5 s ago; `partial` or `off`.",
        },
        AttributeDef {
            key: PROBE,
            kind: "string",
            description: "A kernel program.",
        },
        AttributeDef {
            key: PLANE,
            kind: "string",
            description: "`sockets`; `sample`: the Go runtime's own sample of scheduling latency; `threads`: run queues and system calls; `probes`: goroutines and tasks.",
        },
    ],
};
