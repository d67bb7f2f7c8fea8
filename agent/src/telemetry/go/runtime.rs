//! The Go runtime's own counters.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::{Counter, Gauge, Histogram, UpDownCounter},
    MetricDef,
    go::gc::GC_FORCED,
};

pub const MEMORY_TYPE: &str = "go.memory.type";
pub const CPU_STATE: &str = "go.cpu.state";
pub const CPU_CLASS: &str = "go.cpu.detailed_state";
pub const GC_PAUSE_PHASE: &str = "go.gc.pause.phase";
pub const GC_PAUSE_KIND: &str = "go.gc.pause.kind";
pub const SCAVENGE_GOAL_BY: &str = "go.memory.scavenge.goal_by";
pub const SCAVENGE_KIND: &str = "go.memory.scavenge.kind";

def!(
    GOROUTINE_COUNT,
    "go.goroutine.count",
    "{goroutine}",
    UpDownCounter,
    &[],
    "Live goroutines, without the runtime's own.",
    "memory: as runtime.gcount"
);
def!(
    GOROUTINE_CREATED,
    "go.goroutine.created",
    "{goroutine}",
    Counter,
    &[],
    "Goroutines created; go1.26 and later.",
    "memory: as /sched/goroutines-created"
);
def!(
    CGO_CALLS,
    "go.cgo.calls",
    "{call}",
    Counter,
    &[],
    "Calls into C, if the binary has cgo. For the number of goroutines that are in C now, see go.goroutine.alive, state `cgo`.",
    "memory: runtime.ncgocall and m.ncgocall of all Ms, as /cgo/go-to-c-calls"
);
def!(
    PROCESSOR_LIMIT,
    "go.processor.limit",
    "{thread}",
    UpDownCounter,
    &[],
    "GOMAXPROCS.",
    "memory: runtime.gomaxprocs"
);
def!(
    CPU_TIME,
    "go.cpu.time",
    "s",
    Counter,
    &[CPU_STATE, CPU_CLASS],
    "CPU time as the runtime estimates it at the end of each GC cycle, which differs from the kernel's CPU time; go1.20 and later.",
    "memory: work.cpuStats, as /cpu/classes/*"
);
def!(
    CONFIG_GOGC,
    "go.config.gogc",
    "%",
    UpDownCounter,
    &[],
    "GOGC; absent when off.",
    "memory: gcController.gcPercent"
);
def!(
    MEMORY_USED,
    "go.memory.used",
    "By",
    UpDownCounter,
    &[MEMORY_TYPE],
    "Memory used by the Go runtime.",
    "memory: memstats, as /memory/classes/*"
);
def!(
    MEMORY_RELEASED,
    "go.memory.released",
    "By",
    UpDownCounter,
    &[],
    "Heap memory that the scavenger returned to the kernel and that is not in use again.",
    "memory: memstats.heapStats, as /memory/classes/heap/released"
);
def!(
    MEMORY_LIMIT,
    "go.memory.limit",
    "By",
    UpDownCounter,
    &[],
    "GOMEMLIMIT; absent when there is none.",
    "memory: gcController.memoryLimit"
);
def!(
    MEMORY_ALLOCATED,
    "go.memory.allocated",
    "By",
    Counter,
    &[],
    "Bytes allocated on the heap by the application.",
    "memory: memstats.heapStats"
);
def!(
    MEMORY_ALLOCATIONS,
    "go.memory.allocations",
    "{allocation}",
    Counter,
    &[],
    "Objects allocated on the heap by the application.",
    "memory: memstats.heapStats"
);
def!(
    MEMORY_GC_GOAL,
    "go.memory.gc.goal",
    "By",
    UpDownCounter,
    &[],
    "Heap goal of the current GC cycle; absent while GOGC is off and there is no GOMEMLIMIT.",
    "memory: as gcController.heapGoal"
);
def!(
    GC_CYCLES,
    "go.memory.gc.cycles",
    "{gc_cycle}",
    Counter,
    &[GC_FORCED],
    "GC cycles completed.",
    "memory: memstats.numgc, numforcedgc"
);
def!(
    GC_PAUSE_DURATION,
    "go.memory.gc.pause.duration",
    "s",
    Histogram,
    &[GC_PAUSE_PHASE, GC_PAUSE_KIND],
    "Stop-the-world pauses, with the buckets of /sched/pauses/*; go1.22 and later.",
    "memory: sched.stw*Time*"
);
def!(
    SCHEDULE_DURATION,
    "go.schedule.duration",
    "s",
    Histogram,
    &[],
    "Time of goroutines from runnable to running, with the buckets of /sched/latencies; the runtime samples one switch in eight.",
    "memory: sched.timeToRun"
);
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
    THREAD_COUNT,
    "go.thread.count",
    "{thread}",
    UpDownCounter,
    &[],
    "Ms: threads of the Go runtime. With cgo, this includes the Ms that it keeps in reserve for C threads.",
    "memory: sched.mnext less nmfreed, as runtime.mcount and, without cgo, /sched/threads/total"
);
def!(
    THREAD_IDLE,
    "go.thread.idle",
    "{thread}",
    UpDownCounter,
    &[],
    "Ms that sleep because there is nothing to run.",
    "memory: sched.nmidle"
);
def!(
    THREAD_CREATED,
    "go.thread.created",
    "{thread}",
    Counter,
    &[],
    "Ms created.",
    "memory: sched.mnext"
);
def!(
    THREAD_ENDED,
    "go.thread.ended",
    "{thread}",
    Counter,
    &[],
    "Ms that ended, because a goroutine ended that was locked to its thread.",
    "memory: sched.nmfreed"
);

pub static DEFS: Defs = Defs {
    metrics: &[
        &GOROUTINE_COUNT,
        &GOROUTINE_CREATED,
        &CGO_CALLS,
        &PROCESSOR_LIMIT,
        &CPU_TIME,
        &CONFIG_GOGC,
        &MEMORY_USED,
        &MEMORY_RELEASED,
        &MEMORY_LIMIT,
        &MEMORY_ALLOCATED,
        &MEMORY_ALLOCATIONS,
        &MEMORY_GC_GOAL,
        &GC_CYCLES,
        &GC_PAUSE_DURATION,
        &SCHEDULE_DURATION,
        &LIMITER_ENABLED,
        &LIMITER_LAST_CYCLE,
        &SWEEP_DEBT,
        &SWEEP_LEFT,
        &SCAVENGED,
        &SCAVENGE_GOAL,
        &THREAD_COUNT,
        &THREAD_IDLE,
        &THREAD_CREATED,
        &THREAD_ENDED,
    ],
    spans: &[],
    attributes: &[
        AttributeDef {
            key: MEMORY_TYPE,
            kind: "string",
            description: "`stack` or `other` (everything else), as in the semantic conventions.",
        },
        AttributeDef {
            key: CPU_STATE,
            kind: "string",
            description: "`user`, `gc`, `scavenge`, or `idle`.",
        },
        AttributeDef {
            key: CPU_CLASS,
            kind: "string",
            description: "The runtime's own class, as in /cpu/classes/*: `gc/mark/assist`, `gc/pause`, ….",
        },
        AttributeDef {
            key: GC_PAUSE_PHASE,
            kind: "string",
            description: "`total`, or `stopping`: only from the request until all Ps had stopped.",
        },
        AttributeDef {
            key: GC_PAUSE_KIND,
            kind: "string",
            description: "`gc`, or `other`: stops for another reason.",
        },
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
    ],
};
