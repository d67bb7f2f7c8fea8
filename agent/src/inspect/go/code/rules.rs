//! Which functions refer to which variable of the runtime, and how: what holds for go1.18 to go1.27.

use super::super::dwarf::FieldLoc;
use super::super::offsets::GoOffsets;
use Sight::{Address, Fields, Slice, Value, Word};

/// How a function refers to a variable by RIP-relative operands.
#[derive(Clone, Copy)]
pub(super) enum Sight {
    /// Takes its address.
    Address,
    /// Reads or writes this many bytes of it.
    Value(usize),
    /// Takes its address, or reads or writes 8 bytes of it, and never fewer.
    Word,
    /// Reads or writes its words 0 and 1.
    Slice,
    /// Refers to all of these fields of it; of those that this version has.
    Fields(fn(&GoOffsets) -> Vec<Option<FieldLoc>>),
}

/// A function, and how it refers to the variable. One that a binary has not got is not heard.
pub(super) struct Witness(pub(super) &'static str, pub(super) Sight);

pub(super) struct Rule {
    pub(super) variable: &'static str,
    pub(super) sections: &'static [&'static str],
    pub(super) witnesses: &'static [Witness],
}

/// Variables that hold pointers, and that hold none; without and with an initial value.
const BSS: &[&str] = &[".bss"];
const NOPTR_BSS: &[&str] = &[".noptrbss"];
const DATA: &[&str] = &[".data"];
const CONSTANTS: &[&str] = &[".noptrdata", ".rodata", ".data.rel.ro"];
/// cgo gives it an initial value.
const FLAG: &[&str] = &[".noptrbss", ".noptrdata", ".data"];

pub(super) const SCHED: Rule = Rule {
    variable: "runtime.sched",
    sections: BSS,
    witnesses: &[
        // proc.go
        Witness("runtime.newproc1", Fields(|o| vec![Some(o.sched.ngsys)])),
        Witness("runtime.casgstatus", Fields(|o| vec![o.sched.time_to_run])),
        Witness(
            "runtime.injectglist",
            Fields(|o| vec![o.sched.runqsize, o.sched.runq_size]),
        ),
        Witness(
            "runtime.gfget",
            Fields(|o| {
                vec![
                    o.sched.g_free_n,
                    o.sched.g_free_stack_size,
                    o.sched.g_free_no_stack_size,
                ]
            }),
        ),
    ],
};
pub(super) const WORK: Rule = Rule {
    variable: "runtime.work",
    sections: BSS,
    witnesses: &[
        // mgc.go
        Witness(
            "runtime.gcStart",
            Fields(|o| vec![Some(o.work.t_sweep_term), Some(o.work.stwprocs), Some(o.work.maxprocs)]),
        ),
        Witness(
            "runtime.gcMarkTermination",
            Fields(|o| vec![Some(o.work.heap1), Some(o.work.t_mark_term), Some(o.work.t_end)]),
        ),
        Witness("runtime.gcMarkDone", Fields(|o| vec![Some(o.work.t_mark_term)])),
        Witness("runtime.GC", Fields(|o| vec![Some(o.work.cycles)])),
    ],
};
pub(super) const MEMSTATS: Rule = Rule {
    variable: "runtime.memstats",
    sections: NOPTR_BSS,
    witnesses: &[
        // mgc.go
        Witness(
            "runtime.gcMarkTermination",
            Fields(|o| vec![Some(o.memstats.numgc), Some(o.memstats.numforcedgc)]),
        ),
        // metrics.go
        Witness(
            "runtime.(*sysStatsAggregate).compute",
            Fields(|o| {
                let fields = &o.memstats;
                [fields.buckhash_sys, fields.gc_misc_sys, fields.other_sys]
                    .map(Some)
                    .to_vec()
            }),
        ),
        // malloc.go
        Witness("runtime.persistentalloc1", Fields(|o| vec![Some(o.memstats.other_sys)])),
        // mcache.go
        Witness(
            "runtime.(*mcache).refill",
            Fields(|o| vec![Some(o.memstats.heap_stats)]),
        ),
    ],
};
pub(super) const GC_CONTROLLER: Rule = Rule {
    variable: "runtime.gcController",
    sections: NOPTR_BSS,
    witnesses: &[
        // mgc.go
        Witness("runtime.gcMark", Address),
        Witness("runtime.gcBgMarkWorker", Address),
        Witness(
            "runtime.gcResetMarkState",
            Fields(|o| vec![Some(o.gc_controller.heap_live)]),
        ),
        Witness(
            "runtime.gcMarkTermination",
            Fields(|o| vec![o.gc_controller.assist_time, o.gc_controller.dedicated_mark_time]),
        ),
    ],
};
pub(super) const ALLGLEN: Rule = Rule {
    variable: "runtime.allglen",
    sections: NOPTR_BSS,
    // proc.go
    witnesses: &[
        Witness("runtime.allgadd", Address),
        Witness("runtime.forEachGRace", Value(8)),
    ],
};
pub(super) const ALLGS: Rule = Rule {
    variable: "runtime.allgs",
    sections: BSS,
    // proc.go
    witnesses: &[Witness("runtime.allgadd", Slice), Witness("runtime.forEachG", Slice)],
};
pub(super) const ALLP: Rule = Rule {
    variable: "runtime.allp",
    sections: BSS,
    // proc.go
    witnesses: &[
        Witness("runtime.procresize", Slice),
        Witness("runtime.retake", Slice),
        Witness("runtime.preemptall", Slice),
        Witness("runtime.stopTheWorldWithSema", Slice),
    ],
};
pub(super) const GOMAXPROCS: Rule = Rule {
    variable: "runtime.gomaxprocs",
    sections: NOPTR_BSS,
    // proc.go
    witnesses: &[
        Witness("runtime.procresize", Address),
        Witness("runtime.stopTheWorldWithSema", Value(4)),
        Witness("runtime.handoffp", Value(4)),
        Witness("runtime.sysmon", Value(4)),
    ],
};
pub(super) const BUILD_VERSION: Rule = Rule {
    variable: "runtime.buildVersion",
    sections: DATA,
    // proc.go; the other witness is the string itself.
    witnesses: &[Witness("runtime.schedinit", Slice)],
};
pub(super) const GCPHASE: Rule = Rule {
    variable: "runtime.gcphase",
    sections: NOPTR_BSS,
    witnesses: &[
        // mgc.go
        Witness("runtime.gcMarkTermination", Address),
        Witness("runtime.gcMark", Value(4)),
        Witness("runtime.gcSweep", Value(4)),
        // mgcwork.go
        Witness("runtime.freeSomeWbufs", Value(4)),
    ],
};
pub(super) const ISCGO: Rule = Rule {
    variable: "runtime.iscgo",
    sections: FLAG,
    // proc.go
    witnesses: &[
        Witness("runtime.main", Value(1)),
        Witness("runtime.mcommoninit", Value(1)),
        Witness("runtime.allocm", Value(1)),
        Witness("runtime.newm1", Value(1)),
    ],
};
pub(super) const SIZE_CLASSES: Rule = Rule {
    variable: "runtime.class_to_size",
    sections: CONSTANTS,
    witnesses: &[
        // metrics.go
        Witness("runtime.(*heapStatsAggregate).compute", Address),
        Witness("runtime.initMetrics", Address),
        // slice.go
        Witness("runtime.growslice", Address),
    ],
};
pub(super) const WAIT_REASONS: Rule = Rule {
    variable: "runtime.waitReasonStrings",
    sections: DATA,
    witnesses: &[
        // runtime2.go
        Witness(WAIT_REASON_STRING, Address),
        // traceback.go
        Witness("runtime.goroutineheader", Address),
    ],
};
pub(super) const HEAP: Rule = Rule {
    variable: "runtime.mheap_",
    sections: BSS,
    witnesses: &[
        // mgcsweep.go
        Witness(
            "runtime.deductSweepCredit",
            Fields(|o| {
                let heap = &o.heap;
                vec![
                    heap.sweep_pages_per_byte,
                    heap.pages_swept_basis,
                    heap.sweep_heap_live_basis,
                    heap.pages_swept,
                ]
            }),
        ),
        Witness(
            "runtime.gcPaceSweeper",
            Fields(|o| vec![o.heap.pages_in_use, o.heap.pages_swept, o.heap.sweep_pages_per_byte]),
        ),
        // mgc.go
        Witness(
            "runtime.gcSweep",
            Fields(|o| vec![o.heap.pages_swept, o.heap.sweep_pages_per_byte]),
        ),
    ],
};
pub(super) const SWEEP: Rule = Rule {
    variable: "runtime.sweep",
    sections: BSS,
    witnesses: &[
        // mgcsweep.go
        Witness("runtime.bgsweep", Fields(|o| vec![o.sweep.parked])),
        Witness("runtime.sweepone", Fields(|o| vec![o.sweep.active_state])),
        Witness("runtime.gcPaceSweeper", Fields(|o| vec![o.sweep.active_state])),
        // mgc.go
        Witness(
            "runtime.gcSweep",
            Fields(|o| vec![o.sweep.parked, o.sweep.active_state]),
        ),
    ],
};
/// It held a pointer in go1.18.
pub(super) const SCAVENGE: Rule = Rule {
    variable: "runtime.scavenge",
    sections: NOPTR_BSS,
    witnesses: &[
        // mgcscavenge.go
        Witness(
            "runtime.gcPaceScavenger",
            Fields(|o| vec![o.scavenge.gc_percent_goal, o.scavenge.memory_limit_goal]),
        ),
        // mheap.go
        Witness(
            "runtime.(*mheap).allocSpan",
            Fields(|o| vec![o.scavenge.gc_percent_goal]),
        ),
    ],
};
pub(super) const LIMITER: Rule = Rule {
    variable: "runtime.gcCPULimiter",
    sections: NOPTR_BSS,
    witnesses: &[
        // mgcmark.go
        Witness("runtime.gcAssistAlloc", Fields(|o| vec![o.limiter.enabled])),
        // mgclimit.go
        Witness(
            "runtime.(*limiterEvent).stop",
            Fields(|o| vec![o.limiter.assist_time_pool, o.limiter.idle_time_pool]),
        ),
    ],
};
pub(super) const ALLM: Rule = Rule {
    variable: "runtime.allm",
    sections: BSS,
    // proc.go
    witnesses: &[
        Witness("runtime.mcommoninit", Address),
        Witness("runtime.mexit", Address),
        Witness("runtime.schedtrace", Value(8)),
    ],
};
pub(super) const C_CALLS: Rule = Rule {
    variable: "runtime.ncgocall",
    sections: NOPTR_BSS,
    witnesses: &[
        // proc.go
        Witness("runtime.mexit", Word),
        // debug.go
        Witness("runtime.NumCgoCall", Word),
    ],
};
pub(super) const WAIT_REASON_STRING: &str = "runtime.waitReason.String";
pub(super) const RULES: [&Rule; 19] = [
    &SCHED,
    &WORK,
    &MEMSTATS,
    &GC_CONTROLLER,
    &ALLGLEN,
    &ALLGS,
    &ALLP,
    &GOMAXPROCS,
    &BUILD_VERSION,
    &GCPHASE,
    &ISCGO,
    &SIZE_CLASSES,
    &WAIT_REASONS,
    &HEAP,
    &SWEEP,
    &SCAVENGE,
    &LIMITER,
    &ALLM,
    &C_CALLS,
];
