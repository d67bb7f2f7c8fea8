//! CPU quotas.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::{Counter, UpDownCounter},
    MetricDef,
};

pub const CGROUP_PATH: &str = "whywait.cgroup.path";

def!(
    CPU_QUOTA,
    "whywait.cgroup.cpu.quota",
    "{cpu}",
    UpDownCounter,
    &[CGROUP_PATH],
    "CPU quota of the process' cgroup, and of each cgroup above it that has a quota; in cores.",
    "cgroup: cpu.max, or cpu.cfs_quota_us and cpu.cfs_period_us"
);
def!(
    CPU_PERIODS,
    "whywait.cgroup.cpu.periods",
    "{period}",
    Counter,
    &[CGROUP_PATH],
    "Periods of the quota in which a thread of the cgroup was runnable, since whywait watches the process.",
    "cgroup: cpu.stat, nr_periods"
);
def!(
    CPU_THROTTLED_PERIODS,
    "whywait.cgroup.cpu.throttled.periods",
    "{period}",
    Counter,
    &[CGROUP_PATH],
    "Periods in which the quota was used up.",
    "cgroup: cpu.stat, nr_throttled"
);
def!(
    CPU_THROTTLED_TIME,
    "whywait.cgroup.cpu.throttled.time",
    "s",
    Counter,
    &[CGROUP_PATH],
    "Time for which the cgroup was throttled, summed over cores; the kernel adds it when a throttling ends.",
    "cgroup: cpu.stat, throttled_usec or throttled_time"
);

pub static DEFS: Defs = Defs {
    metrics: &[&CPU_QUOTA, &CPU_PERIODS, &CPU_THROTTLED_PERIODS, &CPU_THROTTLED_TIME],
    spans: &[],
    attributes: &[AttributeDef {
        key: CGROUP_PATH,
        kind: "string",
        description: "The cgroup with the quota, as in /proc/PID/cgroup. For throttled time: the process' own cgroup or the one above it that was throttled last, according to cpu.stat.",
    }],
};
