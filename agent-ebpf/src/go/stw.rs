//! Stops of the world: one hit a stop, before the world is started again.

use agent_common::{
    event::Kind,
    go::{
        ABSENT,
        stw::{FRAMES, PREEMPTED_IN_RUNNEXT, REASONS, SLOW_STOP, START, SWEEP_TERMINATION, Stop, TIMES},
    },
    histogram::Series,
    hits::HitKind,
    target::Target,
    thread::run_queue::OffCpu,
};
use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, macros::uprobe, programs::ProbeContext};

use super::{arguments, current};
use crate::{
    arch, clock,
    hits::hit,
    maps::{LAST_STOPPED, target},
    read::{self, Unreadable},
    record,
    thread::off_cpu,
};

/// At runtime.startTheWorldWithSema(now int64, w worldStop), on the runtime's own stack.
#[uprobe]
pub fn go_stw(ctx: ProbeContext) -> u32 {
    let (tgid, _) = read::current();
    let Some(target) = target(tgid) else { return 0 };
    // One hit a stop: it is attached outside windows too.
    hit(target, HitKind::GoStw);
    let go = &target.go;
    if go.world_stop < START {
        return 0;
    }
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    let finished = arch::go_fourth_argument(unsafe { &*ctx.regs });
    let (given, reason, requested) = arguments(&ctx);
    let now = clock::now();
    // The GC passes the time; others pass 0, and the function reads the clock.
    let end = if given != 0 { given } else { now };
    let reason = u32::from(reason as u8).min(REASONS - 1);
    let stopped = if go.world_stop >= TIMES { finished } else { 0 };
    record::value(target, Series::GoStop, reason, end.saturating_sub(requested));
    // It is written where it stays: on the stack, older verifiers would follow each way to fill it with all that it held so far (Linux 6.1: 647,661
    // of at most a million instructions).
    let Some(mut entry) = record::reserve::<Stop>() else {
        return 0;
    };
    let event = entry.write(Stop {
        header: record::header(Kind::GoStop, target.id, now),
        requested,
        stopped,
        end,
        goid: 0,
        startpc: 0,
        gopc: 0,
        last_goid: 0,
        last_startpc: 0,
        frames: [0; FRAMES],
        last_frames: [0; FRAMES],
        last_top: 0,
        last_stopped: 0,
        last_off_cpu: OffCpu::default(),
        requester_off_cpu: OffCpu::default(),
        percent_goal: 0,
        reason,
        forced: 0,
        last_tid: 0,
        split: 0,
    });
    if let Err(at) = requester(target, &ctx, event) {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        record::unread(at);
        return 0;
    }
    let last = if stopped.saturating_sub(requested) >= SLOW_STOP {
        last_to_stop(target, event)
    } else {
        Ok(())
    };
    record::submit(entry);
    if let Err(at) = last {
        record::unread(at);
    }
    0
}

/// The goroutine that requested the stop; of the GC's first one, what the cycle is for.
#[inline(always)]
fn requester(target: &Target, ctx: &ProbeContext, event: &mut Stop) -> Result<(), Unreadable> {
    let go = &target.go;
    let m: u64 = read::user(current(ctx) + u64::from(go.g_m))?;
    let requester: u64 = read::user(m + u64::from(go.m_curg))?;
    if requester != 0 {
        event.goid = read::user(requester + u64::from(go.g_goid))?;
        event.startpc = read::user(requester + u64::from(go.g_startpc))?;
        event.gopc = read::user(requester + u64::from(go.g_gopc))?;
        stack(target, requester, &mut event.frames);
    }
    if event.reason == SWEEP_TERMINATION {
        if go.gc_percent_heap_goal != ABSENT {
            event.percent_goal = read::user(go.gc_controller + u64::from(go.gc_percent_heap_goal))?;
        }
        event.forced = u32::from(read::user::<u8>(go.work + u64::from(go.work_user_forced))? != 0);
    }
    Ok(())
}

/// At runtime.gcstopm(), on the system stack: the P of this thread stops. The goroutine that was preempted for it is in runnext since
/// go1.26; before, it is the last of the global run queue.
#[uprobe]
pub fn go_stop(ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some(target) = target(tgid) else { return 0 };
    hit(target, HitKind::GoStop);
    let go = &target.go;
    let at = if go.world_stop == PREEMPTED_IN_RUNNEXT {
        let m = read::user::<u64>(current(&ctx) + u64::from(go.g_m));
        let p = m.and_then(|m| read::user::<u64>(m + u64::from(go.m_p)));
        p.map(|p| p + u64::from(go.p_runnext))
    } else {
        Ok(go.sched + u64::from(go.sched_runq_tail))
    };
    let g = at.and_then(read::user::<u64>).unwrap_or_else(|at| {
        record::unread(at);
        0
    });
    if let Some(last) = LAST_STOPPED.get_ptr_mut(target.index) {
        // SAFETY: with the runtime's lock held only one P is the last; of two at the same time either is right.
        unsafe {
            (*last).time = clock::now();
            (*last).g = g;
            (*last).tid = u64::from(tid);
        }
    }
    0
}

/// The P that stopped last, the off-CPU time of its thread, and the goroutine that was preempted there. Its preempt flag stays set until it runs again.
#[inline(always)]
fn last_to_stop(target: &Target, event: &mut Stop) -> Result<(), Unreadable> {
    let go = &target.go;
    let Some(last) = LAST_STOPPED.get(target.index) else {
        return Ok(());
    };
    let g = last.g;
    if last.time < event.requested {
        return Ok(());
    }
    (event.last_tid, event.last_stopped) = (last.tid as u32, last.time);
    // While the world is stopped no other goroutine runs: the requester is still on this thread.
    if let (Some(last_off_cpu), Some(requester_off_cpu)) = (
        off_cpu::between(target, event.last_tid, event.requested, last.time),
        off_cpu::between(target, event.header.tid, event.requested, event.stopped),
    ) {
        (event.last_off_cpu, event.requester_off_cpu, event.split) = (last_off_cpu, requester_off_cpu, 1);
    }
    if g == 0 || read::user::<u8>(g + u64::from(go.g_preempt))? == 0 {
        return Ok(());
    }
    event.last_goid = read::user(g + u64::from(go.g_goid))?;
    event.last_startpc = read::user(g + u64::from(go.g_startpc))?;
    stack(target, g, &mut event.last_frames);
    let top: u64 = read::user(g + u64::from(go.g_sched_sp))?;
    event.last_top = read::user(top)?;
    Ok(())
}

/// The stack of a goroutine that does not run, by its frame pointers, as far as they are valid.
#[inline(always)]
fn stack(target: &Target, g: u64, frames: &mut [u64; FRAMES]) {
    let go = &target.go;
    let Ok(pc) = read::user(g + u64::from(go.g_sched_pc)) else {
        return;
    };
    frames[0] = pc;
    let mut frame = read::user::<u64>(g + u64::from(go.g_sched_bp)).unwrap_or(0);
    for slot in &mut frames[1..] {
        if frame == 0 {
            return;
        }
        let Ok([next, pc]) = read::user::<[u64; 2]>(frame) else {
            return;
        };
        *slot = pc;
        frame = next;
    }
}
