//! The runtime's own sample of scheduling latency, by start function; an event for those that were runnable for long.

use agent_common::{
    event::Kind,
    go::{
        ABSENT,
        latency::{OTHERS, SlowStart},
        sched::{REASONS, RUNNING},
    },
    histogram::Series,
    hits::HitKind,
    target::{BLOCK_QUOTA, PROBES_OPEN, Target},
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::{arguments, current, goroutine::key};
use crate::{
    maps::{USAGE, probed},
    read::{self, Unreadable},
    record,
    table::{self, Goroutines},
};

/// runtime.(*timeHistogram).record(h, duration), which casgstatus calls for the goroutine that begins to run: the m's curg. Before go1.20
/// in casgstatus itself.
#[uprobe]
pub fn go_latency(ctx: ProbeContext) -> u32 {
    let (tgid, _) = read::current();
    if let Some((target, now)) = probed(tgid, HitKind::GoLatency)
        && let Err(at) = started(target, &ctx, now)
    {
        record::unread(at);
    }
    0
}

#[inline(always)]
fn started(target: &Target, ctx: &ProbeContext, now: u64) -> Result<(), Unreadable> {
    let go = &target.go;
    let (histogram, time, _) = arguments(ctx);
    let time = if go.g_runnable_time != ABSENT {
        read::user(running(target, ctx)? + u64::from(go.g_runnable_time))?
    } else if histogram == go.sched + u64::from(go.sched_time_to_run) {
        time
    } else {
        // A pause of the GC.
        return Ok(());
    };
    if time as i64 <= 0 {
        record::count(target, Series::GoResumed, 0);
        return Ok(());
    }
    let g = running(target, ctx)?;
    let startpc: u64 = read::user(g + u64::from(go.g_startpc))?;
    // The other half of the blocks is for other series.
    let is_full = USAGE
        .get(target.index)
        .is_none_or(|usage| usage.blocks >= BLOCK_QUOTA / 2);
    let id = if is_full { OTHERS } else { go.origin(startpc) };
    record::value(target, Series::GoLatency, id, time);
    if time >= target.slow_wait && !is_followed(target, g, now.saturating_sub(time)) {
        send(target, g, startpc, time, now)?;
    }
    Ok(())
}

/// The goroutine that begins to run on this thread.
#[inline(always)]
fn running(target: &Target, ctx: &ProbeContext) -> Result<u64, Unreadable> {
    let m: u64 = read::user(current(ctx) + u64::from(target.go.g_m))?;
    read::user(m + u64::from(target.go.m_curg))
}

/// Whether the probes of windows saw a goroutine become runnable at `since`, and start: then they report it.
#[inline(always)]
fn is_followed(target: &Target, g: u64, since: u64) -> bool {
    if target.flags & PROBES_OPEN == 0 || target.probes_since > since {
        return false;
    }
    // SAFETY: read only; the runtime changes a goroutine's state on one thread at a time, this one.
    let known = table::get::<Goroutines>(key(target, g)).map(|known| unsafe { &*known });
    known.is_some_and(|known| known.window == target.probes_since && known.state == RUNNING && known.since > since)
}

#[inline(always)]
fn send(target: &Target, g: u64, startpc: u64, time: u64, now: u64) -> Result<(), Unreadable> {
    let go = &target.go;
    let parent_goid = if go.g_parent_goid == ABSENT {
        0
    } else {
        read::user(g + u64::from(go.g_parent_goid))?
    };
    record::event(SlowStart {
        header: record::header(Kind::GoSlowStart, target.id, now),
        time,
        goid: read::user(g + u64::from(go.g_goid))?,
        parent_goid,
        gopc: read::user(g + u64::from(go.g_gopc))?,
        startpc,
        wait_reason: u32::from(read::user::<u8>(g + u64::from(go.g_waitreason))?).min(REASONS - 1),
        max_procs: read::user(go.gomaxprocs)?,
    });
    Ok(())
}
