//! A runnable goroutine starts to run: why it did not earlier, and an event when it took long.

use agent_common::{
    event::Kind,
    go::{
        ABSENT,
        sched::{Goroutine, REASONS, Spent, Wait},
    },
    histogram::Series,
    target::Target,
};

use super::{goroutine::spent, ready::waited};
use crate::{
    read::{self, Unreadable},
    record,
    thread::off_cpu,
};

/// A runnable goroutine starts to run on the thread `tid`.
#[inline(always)]
pub fn starts(target: &Target, goroutine: &mut Goroutine, g: u64, tid: u32, now: u64) {
    let since = goroutine.since;
    let time = now.saturating_sub(since);
    record::value(target, Series::GoRunnable, 0, time);
    if goroutine.parked != 0 {
        waited(target, goroutine, since);
    }
    let split = off_core(target, goroutine, tid, now);
    match split {
        Some((run_queue, throttled)) => {
            if run_queue > 0 {
                spent(target, goroutine, Spent::RunQueue, run_queue);
            }
            if throttled > 0 {
                spent(target, goroutine, Spent::Throttled, throttled);
            }
            let rest = time - run_queue - throttled;
            let on = if goroutine.idle == 0 {
                Spent::NoProcessor
            } else {
                Spent::IdleProcessor
            };
            spent(target, goroutine, on, rest);
        }
        None => spent(target, goroutine, Spent::RunnableUnsplit, time),
    }
    let parked = goroutine.parked;
    let is_reported = target.reported_reasons >> (goroutine.reason & (REASONS - 1)) & 1 != 0;
    let waited = parked != 0 && is_reported && since.saturating_sub(parked) >= target.slow_wait;
    if (waited || time >= target.slow_wait)
        && let Err(at) = send(target, goroutine, g, (split, waited), now)
    {
        record::unread(at);
    }
}

/// How long, between runnable and now, the thread in whose queue it was, or the one that runs it, was off-CPU: (run queue, throttled).
/// None when the hooks did not count all the time.
#[inline(always)]
fn off_core(target: &Target, goroutine: &Goroutine, tid: u32, now: u64) -> Option<(u64, u64)> {
    let (since, before) = (goroutine.since, goroutine.off_cpu);
    let time = now.saturating_sub(since);
    // Its sums may have begun before: of an interval in progress only what comes after `since` counts.
    let off = off_cpu::sums(target, goroutine.tid, since, now)?;
    let (mut run_queue, mut throttled) = (
        off.run_queue.saturating_sub(before.run_queue),
        off.throttled.saturating_sub(before.throttled),
    );
    if tid != goroutine.tid {
        let (last, was_throttled) = off_cpu::last_wait(target, tid, since, now);
        if last > run_queue + throttled {
            (run_queue, throttled) = if was_throttled { (0, last) } else { (last, 0) };
        }
    }
    let run_queue = run_queue.min(time);
    Some((run_queue, throttled.min(time - run_queue)))
}

#[inline(always)]
fn send(
    target: &Target,
    goroutine: &Goroutine,
    g: u64,
    (split, waited): (Option<(u64, u64)>, bool),
    now: u64,
) -> Result<(), Unreadable> {
    let go = &target.go;
    let parent = if go.g_parent_goid == ABSENT {
        0
    } else {
        read::user(g + u64::from(go.g_parent_goid))?
    };
    let (run_queue, throttled) = split.unwrap_or_default();
    record::event(Wait {
        header: record::header(Kind::GoWait, target.id, now),
        since: goroutine.since,
        parked: goroutine.parked,
        goid: goroutine.goid,
        parent_goid: parent,
        gopc: read::user(g + u64::from(go.g_gopc))?,
        startpc: goroutine.startpc,
        run_queue,
        throttled,
        wakers: goroutine.wakers,
        source: goroutine.source,
        wait_reason: goroutine.reason,
        queue: goroutine.queue,
        idle: goroutine.idle,
        split: u32::from(split.is_some()),
        waited: u32::from(waited),
        max_procs: read::user(go.gomaxprocs)?,
        pad: 0,
    });
    Ok(())
}
