//! The empty program: what a hit of it costs is the trap.

use agent_common::{event::Kind, go::sched::Wait, hits::FLOOD};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use crate::{clock, record};

#[uprobe]
pub fn calibrate(_ctx: ProbeContext) -> u32 {
    0
}

/// Writes [`FLOOD`] events of no target: how many of them arrive says what the ring buffer can take.
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
