//! What the GC does between its cycles, and what holds it back: its CPU limiter, the sweeper, the scavenger.

use super::{FieldLoc, InspectError, Layouts};

offsets! {
    /// `runtime.gcCPULimiter` (mgclimit.go; since go1.19).
    pub struct LimiterOffsets of "runtime.gcCPULimiter"
    need {}
    maybe {
        /// Whether the GC is kept from using more CPU time (bool).
        enabled: "enabled",
        /// The cycle in which it was on last; 0 if it never was.
        last_enabled_cycle: "lastEnabledCycle",
        assist_time_pool: "assistTimePool",
        idle_mark_time_pool: "idleMarkTimePool",
        idle_time_pool: "idleTimePool",
    }
}

offsets! {
    /// `runtime.mheap`, the type of `runtime.mheap_` (mheap.go).
    pub struct HeapOffsets of "runtime.mheap"
    need {}
    maybe {
        pages_in_use: "pagesInUse",
        /// Pages swept in this cycle.
        pages_swept: "pagesSwept",
        /// Where the line of proportional sweep begins: pages swept, and live heap (bytes).
        pages_swept_basis: "pagesSweptBasis",
        sweep_heap_live_basis: "sweepHeapLiveBasis",
        /// Its slope (float64); 0 when nothing is to be swept.
        sweep_pages_per_byte: "sweepPagesPerByte",
        /// Given back to the kernel in the background (bytes; since go1.21).
        released_background: "pages.scav.releasedBg",
        /// Given back while memory was allocated (bytes; since go1.21).
        released_eager: "pages.scav.releasedEager",
    }
}

offsets! {
    /// `runtime.sweep` (mgcsweep.go).
    pub struct SweepOffsets of "runtime.sweep"
    need {}
    maybe {
        /// Sweepers at work; the highest bit is set when no span is left to sweep.
        active_state: "active.state",
        parked: "parked",
    }
}

offsets! {
    /// `runtime.scavenge` (mgcscavenge.go).
    pub struct ScavengeOffsets of "runtime.scavenge"
    need {}
    maybe {
        /// Retained heap above which memory is given back (bytes), all ones when there is none; since go1.19.
        gc_percent_goal: "gcPercentGoal",
        /// The same of all memory that is mapped, for GOMEMLIMIT.
        memory_limit_goal: "memoryLimitGoal",
    }
}
