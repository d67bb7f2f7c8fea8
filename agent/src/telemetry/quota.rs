//! CPU quotas.

use super::{
    AttributeDef,
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
    "CPU quota of the process' cgroup, and of each one above it that has one; in cores.",
    "cgroup: cpu.max, or cpu.cfs_quota_us and cpu.cfs_period_us"
);
def!(
    CPU_PERIODS,
    "whywait.cgroup.cpu.periods",
    "{period}",
    Counter,
    &[CGROUP_PATH],
    "Periods of such a quota in which something of the cgroup ran, since the process is watched.",
    "cgroup: cpu.stat, nr_periods"
);
def!(
    CPU_THROTTLED_PERIODS,
    "whywait.cgroup.cpu.throttled.periods",
    "{period}",
    Counter,
    &[CGROUP_PATH],
    "Of them, those in which its quota was used up.",
    "cgroup: cpu.stat, nr_throttled"
);
def!(
    CPU_THROTTLED_TIME,
    "whywait.cgroup.cpu.throttled.time",
    "s",
    Counter,
    &[CGROUP_PATH],
    "Time that the cgroup was throttled, summed over cores; the kernel adds it as each throttling ends.",
    "cgroup: cpu.stat, throttled_usec or throttled_time"
);

pub static METRICS: &[&MetricDef] = &[&CPU_QUOTA, &CPU_PERIODS, &CPU_THROTTLED_PERIODS, &CPU_THROTTLED_TIME];

pub static ATTRIBUTES: &[AttributeDef] = &[AttributeDef {
    key: CGROUP_PATH,
    kind: "string",
    description: "The cgroup whose quota it is, as /proc/PID/cgroup writes it. With time that was throttled: the process' own cgroup or the one above it that was throttled of late, by cpu.stat.",
}];
