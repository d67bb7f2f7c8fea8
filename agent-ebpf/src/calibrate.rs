//! The empty program: a hit of it costs only the trap.

use agent_common::{event::Kind, go::sched::Wait, hits::FLOOD};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use crate::{clock, record};

#[uprobe]
pub fn calibrate(_ctx: ProbeContext) -> u32 {
    0
}

/// Writes [`FLOOD`] events of no target: a benchmark of the ring buffer counts how many arrive.
#[uprobe]
pub fn flood(_ctx: ProbeContext) -> u32 {
    let now = clock::now();
    for _ in 0..FLOOD {
        record::event(Wait {
            header: record::header(Kind::GoWait, 0, now),
            ..Wait::default()
        });
    }
    0
}
