//! From wakeup or preemption until a core runs the thread.

use agent_common::{histogram::Series, loss::Loss, thread::run_queue::Waiting};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    maps::{THREADS_WAITING, kernel, target},
    read, record,
};

#[btf_tracepoint(function = "sched_wakeup")]
pub fn thread_wakeup(ctx: BtfTracePointContext) -> i32 {
    begin(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn thread_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    begin(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "sched_switch")]
pub fn thread_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted: u64 = ctx.arg(0);
    let previous: u64 = ctx.arg(1);
    // TASK_RUNNING is 0: it left the core but not the run queue.
    if preempted & 1 != 0 || read::field::<u32>(previous, kernel().task_state) == Some(0) {
        begin(previous);
    }
    end(ctx.arg(2));
    0
}

#[inline(always)]
fn begin(task: u64) {
    let layout = kernel();
    let Some(tgid) = read::field::<u32>(task, layout.task_tgid) else {
        return;
    };
    let Some(target) = target(tgid) else { return };
    let Some(tid) = read::field::<u32>(task, layout.task_pid) else {
        return;
    };
    if THREADS_WAITING
        .insert(
            tid,
            Waiting {
                since: read::now(),
                slot: target.slot,
                pad: 0,
            },
            0,
        )
        .is_err()
    {
        record::lost(Loss::ThreadFull);
    }
}

#[inline(always)]
fn end(task: u64) {
    let layout = kernel();
    let Some(tgid) = read::field::<u32>(task, layout.task_tgid) else {
        return;
    };
    let Some(target) = target(tgid) else { return };
    let Some(tid) = read::field::<u32>(task, layout.task_pid) else {
        return;
    };
    // SAFETY: written under the run queue's lock for this thread; copied before it is removed.
    let Some(waiting) = (unsafe { THREADS_WAITING.get(tid) }).copied() else {
        return;
    };
    if THREADS_WAITING.remove(tid).is_ok() && waiting.slot == target.slot {
        record::value(target, Series::RunQueue, 0, read::now().saturating_sub(waiting.since));
    }
}
