//! How long workers are busy between two parks.

use agent_common::{
    histogram::Series,
    hits::HitKind,
    target::{Target, WORKER_OTHER, worker},
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use crate::{
    maps::{USAGE, probed},
    read, record,
    table::{self, Workers},
};

/// A worker is about to park: it was busy since its first poll after the last park.
#[uprobe]
pub fn tokio_park(_ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::TokioPark) else {
        return 0;
    };
    let Some(thread) = table::get::<Workers>(tid) else {
        return 0;
    };
    // SAFETY: an entry of this thread's own; it is removed when the thread has ended, or the target's probes are gone.
    let thread = unsafe { &mut *thread };
    if thread.target_id == target.id && thread.busy_since >= target.probes_since {
        let id = worker_id(target, tid);
        record::value(target, Series::TokioBusy, id, now.saturating_sub(thread.busy_since));
        thread.busy_since = 0;
    }
    0
}

/// The id under which a worker's thread is counted: its tid, or [`WORKER_OTHER`] when another thread has its slot.
#[inline(always)]
fn worker_id(target: &Target, tid: u32) -> u32 {
    let Some(usage) = USAGE.get_ptr_mut(target.index) else {
        return WORKER_OTHER;
    };
    let (row, at) = worker(tid);
    // SAFETY: an element of an array that lives as long as this object; of two threads that take a slot at once the last one has it.
    let worker = unsafe { &mut (*usage).workers[row][at] };
    if *worker == 0 {
        *worker = tid;
    }
    if *worker == tid { tid } else { WORKER_OTHER }
}
