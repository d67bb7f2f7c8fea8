//! Mark assists: the time that goroutines mark for the GC because they allocate. An assist is seen at its end, in runtime.gcAssistAlloc1
//! (go1.18 to go1.27, runtime/mgcmark.go), which has added what it took to p.gcAssistTime by then.

use crate::{event::Header, layout, shared};

/// p.gcAssistTime over this, ns, is added to gcController.assistTime, and p.gcAssistTime is reset to 0 (runtime/mgcpacer.go, gcAssistTimeSlack).
pub const SLACK: u64 = 5000;

/// Origins (start functions) that are reported for each cycle; the others are summed up.
pub const PAYERS: usize = 8;

shared! {
    /// Key of a P.
    pub struct ProcessorKey {
        /// Its address.
        pub p: u64,
        /// The target's id.
        pub target_id: u64,
    }

    /// A P's assist time when an assist on it ended.
    pub struct AssistTime {
        /// p.gcAssistTime, ns; 0 when it was reset.
        pub time: u64,
        /// The window that saw it, by the time at which it was opened.
        pub window: u64,
        /// work.cycles: each cycle resets p.gcAssistTime (gcControllerState.startCycle).
        pub cycle: u64,
    }

    /// Key of a payer in the current cycle.
    pub struct PayerKey {
        /// The target's id.
        pub target_id: u32,
        /// In order of first payment; [`PAYERS`] is all others.
        pub rank: u32,
    }

    /// What goroutines with one start function paid.
    pub struct Payer {
        /// Entry of that function.
        pub startpc: u64,
        /// ns.
        pub time: u64,
    }
}

shared! {
    /// All assists of a cycle that lay completely in a window. Its [`super::gc::Cycle`] comes next.
    pub struct Assists {
        pub header: Header,
        /// memstats.numgc: the cycle's number, from 1.
        pub number: u64,
        /// In no order; 0 where there are no more.
        pub payers: [Payer; PAYERS],
        /// Sum of all others, ns.
        pub others: u64,
    }
}

layout!(ProcessorKey: 16, AssistTime: 24, PayerKey: 8, Payer: 16, Assists: 24 + 8 + 16 * PAYERS + 8);
