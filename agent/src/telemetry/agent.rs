//! The agent's own account: what came, what was lost, what is off.

use super::{
    AttributeDef,
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
    description: "Events taken out of the ring buffer.",
    source: "agent",
    attributes: &[],
};
pub static EVENTS_DROPPED: MetricDef = MetricDef {
    name: "whywait.events.dropped",
    unit: "{event}",
    instrument: Counter,
    description: "Events and values lost, by cause; causes that never occurred are reported as 0. `…_full`: the map had no room, or the target's \
                  quota was used up (`whywait.quota.exceeded`).",
    source: "kernel side and agent",
    attributes: &[CAUSE],
};
pub static RECURSION_MISSES: MetricDef = MetricDef {
    name: "whywait.kernel.program.recursion_misses",
    unit: "{run}",
    instrument: Counter,
    description: "Runs of a program of the kernel side that the kernel skipped, as another run of it was under way on that CPU: what \
                  they would have counted is lost. Programs that were always run are left out.",
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
    description: "Spans and metric points given up: the queue was full, the endpoint refused them, or it stayed down.",
    source: "agent",
    attributes: &[CAUSE],
};
pub static SIGNAL_STATE: MetricDef = MetricDef {
    name: "whywait.signal.state",
    unit: "1",
    instrument: Gauge,
    description: "1 for each signal of a target, with how much of it there is; reported under the target's resource.",
    source: "agent",
    attributes: &[SIGNAL, COVERAGE, CAUSE],
};

pub static OVERHEAD_HITS: MetricDef = MetricDef {
    name: "whywait.overhead.hits",
    unit: "{hit}",
    instrument: Counter,
    description: "Hits of probes that the target paid for; reported under the target's resource.",
    source: "kernel side",
    attributes: &[PROBE],
};
pub static OVERHEAD_TIME: MetricDef = MetricDef {
    name: "whywait.overhead.cpu.time",
    unit: "ns",
    instrument: Counter,
    description: "CPU time that those hits cost the target: hits times the cost of one, as calibrated and measured on this machine. \
                  Apart, what probes' hits cost besides that were the first on their CPU in so long (`cold_…`), or only the first of their \
                  kind there (`cold_kind_…`).",
    source: "kernel side, BPF_ENABLE_STATS, calibration",
    attributes: &[PROBE],
};
pub static WINDOW_OPEN: MetricDef = MetricDef {
    name: "whywait.window.open",
    unit: "ns",
    instrument: Counter,
    description: "Time for which the kernel's hooks, or the probes of goroutines or tasks, counted. Their figures are weighed \
                  by `whywait.window.time` over this. Absent while they always counted.",
    source: "agent",
    attributes: &[PLANE],
};
pub static WINDOW_TIME: MetricDef = MetricDef {
    name: "whywait.window.time",
    unit: "ns",
    instrument: Counter,
    description: "Time that those windows stand for.",
    source: "agent",
    attributes: &[PLANE],
};
pub static WINDOW_CUT: MetricDef = MetricDef {
    name: "whywait.window.cut",
    unit: "{window}",
    instrument: Counter,
    description: "Windows that the kernel side ended by itself: what they may cost was used up before the governor's next turn.",
    source: "kernel side",
    attributes: &[PLANE],
};
pub static RESERVED: MetricDef = MetricDef {
    name: "whywait.budget.reserved",
    unit: "%",
    instrument: Gauge,
    description: "Part of the target's budget that is kept for the probes of goroutines or tasks, by what their last windows \
                  told: how many were ready and did not run. The rest is the kernel's hooks'. Absent while probes and hooks \
                  always counted.",
    source: "agent",
    attributes: &[],
};
pub static FAULTS: MetricDef = MetricDef {
    name: "whywait.agent.faults",
    unit: "{fault}",
    instrument: Counter,
    description: "What went wrong around the agent and did not end the run: `screen`, standard output could not be written; \
                  `pictures`, it stood still, and summaries were left out; `log`, standard error likewise; `maps`, the kernel's \
                  maps could not be read or changed; `ring`, the ring buffer could not be waited for; `recording`; `late`, a process' memory or a file \
                  did not answer.",
    source: "agent",
    attributes: &[CAUSE],
};
pub static QUOTA_EXCEEDED: MetricDef = MetricDef {
    name: "whywait.quota.exceeded",
    unit: "{value}",
    instrument: Counter,
    description: "Values of a target beyond what one may have of the maps that all share: not counted (`histogram_quota`), counted \
                  under other peers (`peer_quota`), or not begun, each time, beyond three quarters of a map (`goroutine_quota`, `tokio_woken_quota`, `tokio_thread_quota`, \
                  `connect_quota`, `socket_quota`, `thread_quota`, `syscall_quota`). Absent while there are none.",
    source: "kernel side",
    attributes: &[CAUSE],
};
pub static SHED: MetricDef = MetricDef {
    name: "whywait.agent.shed",
    unit: "1",
    instrument: Gauge,
    description: "What the agent gives up to stay within its own limits: 0 nothing, 1 most spans, 2 most windows, 3 all windows \
                  and new targets; each with those before it.",
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
    description: "Resident set of the agent itself.",
    source: "/proc/self/stat",
    attributes: &[],
};

pub static METRICS: &[&MetricDef] = &[
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
    &RESERVED,
    &FAULTS,
    &QUOTA_EXCEEDED,
    &SHED,
    &CPU_TIME,
    &MEMORY,
];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: CAUSE,
        kind: "string",
        description: "Why: a kind of loss, or what is missing.",
    },
    AttributeDef {
        key: SIGNAL,
        kind: "string",
        description: "A signal's name, as `whywait doctor` prints it.",
    },
    AttributeDef {
        key: COVERAGE,
        kind: "string",
        description: "`full`; `windows`: seen for a share of the time and weighed, as the budget allows; `partial` or `off`.",
    },
    AttributeDef {
        key: PROBE,
        kind: "string",
        description: "A program of the kernel side.",
    },
    AttributeDef {
        key: PLANE,
        kind: "string",
        description: "`hooks`: sockets and threads; `probes`: goroutines and tasks.",
    },
];
