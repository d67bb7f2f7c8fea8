//! Run queue latency: from wakeup or preemption until a CPU runs the thread; and whether it was throttled.

use agent_common::{
    histogram::Series,
    hits::HitKind,
    loss::Loss,
    target::Target,
    thread::run_queue::{ASLEEP, INTERVALS, MIN_INTERVAL, OffCpuInterval, RUN_QUEUE, THROTTLED, Thread},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::off_cpu::thread;
use crate::{
    clock, held, log,
    maps::hooked,
    read::{self, kernel},
    record,
    table::Threads,
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
    let left = leaves(ctx.arg(1), preempted & 1 != 0);
    runs(ctx.arg(2), left);
    0
}

/// A thread of a target, by its task_struct: the target and the tid.
#[inline(always)]
fn of_target(task: u64, kind: HitKind) -> Option<(&'static Target, u32)> {
    let target = hooked(read::argument(task, kernel!(task_tgid)), kind)?;
    Some((target, read::argument(task, kernel!(task_pid))))
}

#[inline(always)]
fn woken(task: u64) {
    let Some((target, tid)) = of_target(task, HitKind::ThreadWakeup) else {
        return;
    };
    let now = clock::now();
    let Some((thread, new)) = thread(target, tid) else {
        return;
    };
    if new {
        // It was asleep until now, or is a new thread; or it has not left its CPU yet, which `leaves` allows for.
        thread.known = now;
    } else if thread.asleep == 0 {
        // It has not left its CPU yet (linux, kernel/sched/core.c, ttwu_runnable), or is on a run queue already.
        return;
    } else {
        thread.off_cpu.blocked += now.saturating_sub(thread.asleep);
        remember(thread, thread.asleep, now, ASLEEP);
        thread.asleep = 0;
    }
    waits(thread, task, now);
}

/// Returns the time, if the thread is a target's; else 0.
#[inline(always)]
fn leaves(task: u64, preempted: bool) -> u64 {
    let Some((target, tid)) = of_target(task, HitKind::ThreadSwitch) else {
        return 0;
    };
    let state: u32 = read::argument(task, kernel!(task_state));
    if !preempted && state & DEAD != 0 {
        held::free::<Threads>(target, tid);
        return 0;
    }
    let now = clock::now();
    if let Some((thread, new)) = thread(target, tid) {
        if new {
            // It has been on its CPU since the hooks count: otherwise they had seen it start.
            thread.known = target.run_queue_since;
        } else if thread.asleep != 0 || thread.since > thread.known {
            unseen(target, tid, thread, now);
        }
        // TASK_RUNNING is 0: it left the CPU but not the run queue.
        if preempted || state == 0 {
            waits(thread, task, now);
        } else {
            thread.asleep = now;
            thread.since = 0;
        }
    }
    now
}

/// The thread was woken, or began to run, and no hook was called: what it did before `now` is not known.
#[inline(always)]
fn unseen(target: &Target, tid: u32, thread: &mut Thread, now: u64) {
    record::lost(Loss::ThreadUnseen);
    log::unseen(u64::from(target.pid), u64::from(tid));
    // A wait that begins now is after that, unlike that of a thread which is first seen when it is woken.
    thread.known = now - 1;
}

/// An off-CPU interval is over.
#[inline(always)]
fn remember(thread: &mut Thread, begin: u64, end: u64, kind: u64) {
    if end.saturating_sub(begin) < MIN_INTERVAL {
        return;
    }
    thread.intervals[(thread.interval_count % INTERVALS) as usize] = OffCpuInterval::new(begin, end, kind);
    thread.interval_count += 1;
}

#[inline(always)]
fn waits(thread: &mut Thread, task: u64, now: u64) {
    thread.since = now;
    thread.throttled = u32::from(is_throttled(task));
}

/// Whether the quota of the thread's cgroup, or of a parent, is used up (linux, kernel/sched/fair.c, throttled_hierarchy).
#[inline(always)]
fn is_throttled(task: u64) -> bool {
    if kernel!(cfs_rq_throttle_count) == 0 {
        return false;
    }
    let queue: u64 = read::argument(task, kernel!(task_cfs_rq));
    // The verifier knows what a field of a task points to as well; a bad address reads as 0.
    read::argument::<i32>(queue, kernel!(cfs_rq_throttle_count)) > 0
}

/// `left` is when the thread before it left the CPU, or 0.
#[inline(always)]
fn runs(task: u64, left: u64) {
    let Some((target, tid)) = of_target(task, HitKind::ThreadSwitch) else {
        return;
    };
    let Some((thread, new)) = thread(target, tid) else {
        return;
    };
    let now = if left == 0 { clock::now() } else { left };
    if new {
        thread.known = now;
    }
    let (since, asleep) = (thread.since, thread.asleep);
    thread.since = 0;
    thread.asleep = 0;
    if since == 0 {
        if asleep != 0 {
            unseen(target, tid, thread, now);
        }
        return;
    }
    let waited = now.saturating_sub(since);
    if thread.throttled != 0 {
        thread.off_cpu.throttled += waited;
        remember(thread, since, now, THROTTLED);
    } else {
        thread.off_cpu.run_queue += waited;
        remember(thread, since, now, RUN_QUEUE);
    }
    (thread.last_begin, thread.last_end) = (since, now);
    record::value(target, Series::RunQueue, 0, waited);
}
