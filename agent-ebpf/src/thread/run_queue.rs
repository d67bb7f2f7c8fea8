//! From wakeup or preemption until a core runs the thread.

use agent_common::{histogram::Series, hits::Probe, loss::Loss, target::Target, thread::run_queue::Waiting};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    maps::{THREADS_WAITING, hooked},
    read::{self, kernel},
    record,
};

/// Bits of task_struct.__state that say the thread will never run again (TASK_DEAD, include/linux/sched.h).
const DEAD: u32 = 0x80;

#[btf_tracepoint(function = "sched_wakeup")]
pub fn thread_wakeup(ctx: BtfTracePointContext) -> i32 {
    woken(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn thread_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    woken(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "sched_switch")]
pub fn thread_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted: u64 = ctx.arg(0);
    leaves(ctx.arg(1), preempted & 1 != 0);
    runs(ctx.arg(2));
    0
}

/// A thread of a target, by its task_struct: the target and the tid.
#[inline(always)]
fn of_target(task: u64, probe: Probe) -> Option<(&'static Target, u32)> {
    let target = hooked(read::argument(task, kernel!(task_tgid)), probe)?;
    Some((target, read::argument(task, kernel!(task_pid))))
}

#[inline(always)]
fn woken(task: u64) {
    if let Some((target, tid)) = of_target(task, Probe::ThreadWakeup) {
        waits(target, tid);
    }
}

#[inline(always)]
fn leaves(task: u64, preempted: bool) {
    let Some((target, tid)) = of_target(task, Probe::ThreadSwitch) else {
        return;
    };
    let state: u32 = read::argument(task, kernel!(task_state));
    // TASK_RUNNING is 0: it left the core but not the run queue.
    if preempted || state == 0 {
        waits(target, tid);
    } else if state & DEAD != 0 {
        let _ = THREADS_WAITING.remove(tid);
    }
}

#[inline(always)]
fn waits(target: &Target, tid: u32) {
    let now = read::now();
    if let Some(waiting) = THREADS_WAITING.get_ptr_mut(tid) {
        // SAFETY: changed for this thread only, under its run queue's lock.
        let waiting = unsafe { &mut *waiting };
        waiting.slot = target.slot;
        waiting.since = now;
        return;
    }
    let waiting = Waiting {
        since: now,
        slot: target.slot,
        pad: 0,
    };
    if THREADS_WAITING.insert(tid, waiting, 0).is_err() {
        record::lost(Loss::ThreadFull);
    }
}

#[inline(always)]
fn runs(task: u64) {
    let Some((target, tid)) = of_target(task, Probe::ThreadSwitch) else {
        return;
    };
    let Some(waiting) = THREADS_WAITING.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: changed for this thread only, under its run queue's lock.
    let waiting = unsafe { &mut *waiting };
    let since = waiting.since;
    waiting.since = 0;
    if since != 0 && since >= target.hooks_since && waiting.slot == target.slot {
        record::value(target, Series::RunQueue, 0, read::now().saturating_sub(since));
    }
}
