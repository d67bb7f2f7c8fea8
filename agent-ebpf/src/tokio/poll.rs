//! One poll of a task: between two transitions of its state, which is the first field of its header, or until it returns.

use agent_common::{
    event::Kind,
    histogram::Series,
    hits::HitKind,
    target::{POLLS_RETURN, Target},
    tokio::poll::{BLOCKING, Poll, Thread, TypeKey, UNENDED},
};
use aya_ebpf::{helpers::bpf_get_current_comm, macros::uprobe, programs::ProbeContext};

use super::{argument, wake};
use crate::{
    actor, arch, held, log,
    maps::probed,
    read, record,
    table::{self, Types, Workers},
};

/// State::transition_to_running(&self): a poll begins.
#[uprobe]
pub fn tokio_poll_begin(ctx: ProbeContext) -> u32 {
    let task = argument(&ctx);
    let sp = stack_pointer(&ctx);
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
        if same && thread.task != 0 && thread.since >= target.probes_since && target.flags & POLLS_RETURN != 0 {
            unreturned(target, thread, sp);
        }
        thread.busy_since = if same && thread.busy_since >= target.probes_since {
            thread.busy_since
        } else {
            now
        };
        thread.task = task;
        thread.since = now;
        thread.sp = sp;
        thread.future = future;
        thread.target_id = target.id;
        return 0;
    }
    let thread = Thread {
        task,
        since: now,
        busy_since: now,
        sp,
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
    ended(target, thread, now);
    0
}

/// Behind a call of a task's poll function: the poll is over.
#[uprobe]
pub fn tokio_poll_return(ctx: ProbeContext) -> u32 {
    let sp = stack_pointer(&ctx);
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::TokioPollEnd) else {
        return 0;
    };
    let Some(thread) = table::get::<Workers>(tid) else {
        return 0;
    };
    // SAFETY: as above.
    let thread = unsafe { &mut *thread };
    if thread.target_id != target.id || thread.since < target.probes_since {
        // The first end that this window sees on this thread: its begin was before.
        thread.task = 0;
        return 0;
    }
    // While the poll's frame is on the stack, something else was called in the same way.
    if thread.task != 0 && sp > thread.sp {
        ended(target, thread, now);
    }
    0
}

/// The poll of a thread is over at `now`.
#[inline(always)]
fn ended(target: &Target, thread: &mut Thread, now: u64) {
    let task = core::mem::replace(&mut thread.task, 0);
    if thread.future & UNENDED != 0 {
        // Only some ends of such polls can be seen: the begin may be that of a poll that ended long ago.
        return;
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
}

/// A poll begins, its stack pointer is `sp`, and the thread's last one was not seen to return.
#[inline(always)]
fn unreturned(target: &Target, thread: &Thread, sp: u64) {
    if sp < thread.sp {
        // It goes on: this one is inside it.
        record::count(target, Series::TokioUnmatched, 0);
    } else if thread.future & UNENDED == 0 {
        // It returned to a place that is not known.
        record::count(target, Series::TokioUnended, thread.future);
    }
}

#[inline(always)]
fn stack_pointer(ctx: &ProbeContext) -> u64 {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    let (_, sp) = arch::ip_and_sp(unsafe { &*ctx.regs });
    sp
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
