//! Go's GC: what it does between its cycles, and who pays for it.

use super::{
    AttributeDef,
    Instrument::{Counter, Gauge, UpDownCounter},
    MetricDef,
    goroutine::{GOROUTINE_FUNCTION, GOROUTINE_SYSTEM},
    net::OVERFLOW,
};

pub const SCAVENGE_GOAL_BY: &str = "go.memory.scavenge.goal_by";
pub const SCAVENGE_KIND: &str = "go.memory.scavenge.kind";
pub const ASSIST_FUNCTIONS: &str = "go.gc.assist.functions";
pub const ASSIST_OTHERS: &str = "go.gc.assist.others_ns";

def!(
    LIMITER_ENABLED,
    "go.gc.limiter.enabled",
    "1",
    Gauge,
    &[],
    "1 while the GC's CPU limiter is on: the GC used half of the CPU time, so goroutines do no assists, and the heap may grow over GOMEMLIMIT; go1.19 and later.",
    "memory: gcCPULimiter.enabled"
);
def!(
    LIMITER_LAST_CYCLE,
    "go.gc.limiter.last_enabled_cycle",
    "{gc_cycle}",
    Gauge,
    &[],
    "The last GC cycle in which the CPU limiter was on, 0 if it never was; go1.19 and later.",
    "memory: gcCPULimiter.lastEnabledCycle, as /gc/limiter/last-enabled"
);
def!(
    SWEEP_DEBT,
    "go.gc.sweep.debt",
    "By",
    UpDownCounter,
    &[],
    "Memory that the next goroutine that allocates has to sweep first: how far the sweeper is behind its pace.",
    "memory: mheap_.sweepPagesPerByte and its basis, as runtime.deductSweepCredit"
);
def!(
    SWEEP_LEFT,
    "go.gc.sweep.left",
    "By",
    UpDownCounter,
    &[],
    "Memory in use that was not swept since the last cycle, including what was allocated since; 0 when sweeping is done.",
    "memory: mheap_.pagesInUse less pagesSwept, as runtime.gcPaceSweeper; sweep.active"
);
def!(
    SCAVENGED,
    "go.memory.scavenged",
    "By",
    Counter,
    &[SCAVENGE_KIND],
    "Memory that the scavenger returned to the kernel since the process began; with GODEBUG=scavtrace=1, since the last sweep. Without memory that debug.FreeOSMemory returned; go1.21 and later.",
    "memory: mheap_.pages.scav.releasedBg, releasedEager"
);
def!(
    SCAVENGE_GOAL,
    "go.memory.scavenge.goal",
    "By",
    UpDownCounter,
    &[SCAVENGE_GOAL_BY],
    "Memory above which the scavenger returns memory: for GOGC, of the retained heap; for GOMEMLIMIT, of all mapped memory. Absent while memory is not above the goal; go1.19 and later.",
    "memory: scavenge.gcPercentGoal, memoryLimitGoal"
);
def!(
    ASSIST_TIME,
    "go.gc.assist.time",
    "ns",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Time of mark assists, by the goroutines' start function; without the wait for credit, which is in go.goroutine.time. Of the first assist on each P in a window, up to 5 µs may belong to the previous one. In windows it varies with the number of GC cycles that they catch: go.cpu.time has the exact sum (gc/mark/assist), this metric the shares.",
    "uprobe: runtime.gcAssistAlloc1, at its end, reading p.gcAssistTime"
);
def!(
    ASSIST_COUNT,
    "go.gc.assist.count",
    "{assist}",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Mark assists, by the goroutines' start function.",
    "uprobe: as go.gc.assist.time"
);

pub static METRICS: &[&MetricDef] = &[
    &LIMITER_ENABLED,
    &LIMITER_LAST_CYCLE,
    &SWEEP_DEBT,
    &SWEEP_LEFT,
    &SCAVENGED,
    &SCAVENGE_GOAL,
    &ASSIST_TIME,
    &ASSIST_COUNT,
];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: SCAVENGE_GOAL_BY,
        kind: "string",
        description: "What sets the goal: `gogc` or `gomemlimit`.",
    },
    AttributeDef {
        key: SCAVENGE_KIND,
        kind: "string",
        description: "`background`, or `eager`: done by a goroutine that allocated, to stay below a goal.",
    },
    AttributeDef {
        key: ASSIST_FUNCTIONS,
        kind: "string[]",
        description: "Mark assists of the cycle by the goroutines' start function, each with its time in ns, largest first, five at most. Only if a window covered the whole cycle.",
    },
    AttributeDef {
        key: ASSIST_OTHERS,
        kind: "int",
        description: "Time of the cycle's assists of all other functions, ns.",
    },
];
