//! One poll of a task: between two transitions of its state, which is the first field of its header.

use agent_common::{
    event::Kind,
    histogram::Series,
    hits::HitKind,
    target::{Target, WORKER_OTHER, worker},
    tokio::poll::{BLOCKING, Poll, Thread, TypeKey, UNENDED},
};
use aya_ebpf::{helpers::bpf_get_current_comm, macros::uprobe, programs::ProbeContext};

use super::{argument, wake};
use crate::{
    actor, held, log,
    maps::{USAGE, probed},
    read, record,
    table::{self, Types, Workers},
};

/// State::transition_to_running(&self): a poll begins.
#[uprobe]
pub fn tokio_poll_begin(ctx: ProbeContext) -> u32 {
    let task = argument(&ctx);
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::TokioPollBegin) else {
        return 0;
    };
    let future = type_of(target, task);
    if future & BLOCKING == 0 {
        wake::polled(target, task, now);
    }
    if future & UNENDED != 0 {
        record::count(target, Series::TokioUnended, future);
    }
    if let Some(thread) = table::get::<Workers>(tid) {
        // SAFETY: an entry of this thread's own; it is removed when the thread has ended, or the target's probes are gone.
        let thread = unsafe { &mut *thread };
        let same = thread.target_id == target.id;
        thread.busy_since = if same && thread.busy_since >= target.probes_since {
            thread.busy_since
        } else {
            now
        };
        thread.task = task;
        thread.since = now;
        thread.future = future;
        thread.target_id = target.id;
        return 0;
    }
    let thread = Thread {
        task,
        since: now,
        busy_since: now,
        future,
        target_id: target.id,
    };
    let _ = held::add::<Workers>(target, tid, &thread);
    0
}

/// State::transition_to_idle(&self), transition_to_complete(&self): the poll is over.
#[uprobe]
pub fn tokio_poll_end(ctx: ProbeContext) -> u32 {
    let task = argument(&ctx);
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::TokioPollEnd) else {
        return 0;
    };
    let Some(thread) = table::get::<Workers>(tid) else {
        return 0;
    };
    // SAFETY: as above.
    let thread = unsafe { &mut *thread };
    if thread.since < target.probes_since {
        // The first end that this window sees on this thread: its begin was before.
        thread.task = 0;
        return 0;
    }
    if thread.task != task || thread.target_id != target.id {
        // A poll that began before the probes were attached, or one inside another poll.
        record::count(target, Series::TokioUnmatched, 0);
        log::other_poll(u64::from(target.pid), task, thread.task);
        return 0;
    }
    thread.task = 0;
    if thread.future & UNENDED != 0 {
        // Only some ends of such polls can be seen: the begin may be that of a poll that ended long ago.
        return 0;
    }
    let took = now.saturating_sub(thread.since);
    if thread.future & BLOCKING != 0 {
        record::value(target, Series::TokioBlocking, thread.future, took);
    } else {
        record::value(target, Series::TokioPoll, thread.future, took);
        if took >= target.slow_poll {
            slow(target, task, thread.since, thread.future, now);
        }
    }
    0
}

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
    // SAFETY: as above.
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

/// The type id of a task, by its vtable; 0 when it is not known.
#[inline(always)]
fn type_of(target: &Target, task: u64) -> u32 {
    let Ok(vtable) = read::user::<u64>(task + u64::from(target.tokio_vtable)) else {
        return 0;
    };
    let key = TypeKey {
        vtable,
        target_id: u64::from(target.id),
    };
    // SAFETY: written by user space before the first probe is attached, and changed only between windows.
    table::get::<Types>(key).map_or(0, |future| unsafe { *future })
}

#[inline(always)]
fn slow(target: &Target, task: u64, since: u64, future: u32, now: u64) {
    record::event(Poll {
        header: record::header(Kind::TokioPoll, target.id, now),
        since,
        task_id: actor::task_id(target, task).unwrap_or(0),
        future,
        pad: 0,
        thread: bpf_get_current_comm().unwrap_or([0; 16]),
    });
}
