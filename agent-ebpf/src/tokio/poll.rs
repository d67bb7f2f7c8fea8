//! One poll of a task: from the task's poll function to the state transition that ends it.

use agent_common::{
    event::Kind,
    histogram::Series,
    loss::Loss,
    target::Target,
    tokio::poll::{BLOCKING, Poll, Running, SiteKey},
};
use aya_ebpf::{helpers::bpf_get_current_comm, macros::uprobe, programs::ProbeContext};

use super::{address, argument, wake};
use crate::{
    maps::{TOKIO_PARKED, TOKIO_RUNNING, TOKIO_SITES, target},
    read, record,
};

/// A task's poll function, the header in the first argument. Its address says whose future it is.
#[uprobe]
pub fn tokio_poll_begin(ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some(target) = target(tgid) else { return 0 };
    let task = argument(&ctx);
    let site = SiteKey {
        ip: address(&ctx),
        slot: u64::from(target.slot),
    };
    // SAFETY: written by user space before the probe is attached, never changed.
    let future = unsafe { TOKIO_SITES.get(site) }.copied().unwrap_or(0);
    let now = read::now();
    if future & BLOCKING == 0 {
        wake::polled(target, task, now);
    }
    if TOKIO_RUNNING
        .insert(
            tid,
            Running {
                since: now,
                task,
                future,
                slot: target.slot,
            },
            0,
        )
        .is_err()
    {
        record::lost(Loss::TokioPollFull);
    }
    0
}

/// State::transition_to_idle or transition_to_complete: the header is the first argument, and the poll is over.
#[uprobe]
pub fn tokio_poll_end(ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some(target) = target(tgid) else { return 0 };
    // SAFETY: an entry of this thread's own; copied before it is removed.
    let Some(running) = (unsafe { TOKIO_RUNNING.get(tid) }).copied() else {
        return 0;
    };
    if running.task != argument(&ctx) || running.slot != target.slot {
        record::count(target, Series::TokioUnmatched, 0);
        return 0;
    }
    let now = read::now();
    let took = now.saturating_sub(running.since);
    if running.future & BLOCKING != 0 {
        record::value(target, Series::TokioBlocking, running.future, took);
    } else {
        record::value(target, Series::TokioPoll, running.future, took);
        if took >= target.slow_poll {
            slow(target, running, now);
        }
    }
    let _ = TOKIO_RUNNING.remove(tid);
    0
}

/// A worker begins to park.
#[uprobe]
pub fn tokio_park_begin(_ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    if target(tgid).is_some() && TOKIO_PARKED.insert(tid, read::now(), 0).is_err() {
        record::lost(Loss::TokioPollFull);
    }
    0
}

/// A worker is back from its park.
#[uprobe]
pub fn tokio_park_end(_ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some(target) = target(tgid) else { return 0 };
    // SAFETY: an entry of this thread's own; copied before it is removed.
    let Some(since) = (unsafe { TOKIO_PARKED.get(tid) }).copied() else {
        return 0;
    };
    let _ = TOKIO_PARKED.remove(tid);
    record::value(target, Series::TokioPark, tid, read::now().saturating_sub(since));
    0
}

#[inline(always)]
fn slow(target: &Target, running: Running, now: u64) {
    record::event(Poll {
        header: record::header(Kind::TokioPoll, target.slot, now),
        since: running.since,
        task_id: read::task_id(target, running.task).unwrap_or(0),
        future: running.future,
        pad: 0,
        thread: bpf_get_current_comm().unwrap_or([0; 16]),
    });
}
