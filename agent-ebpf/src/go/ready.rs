//! A goroutine becomes runnable: what it had waited for, and who woke it.

use agent_common::{
    go::sched::{CHAIN, Goroutine, REASONS, RUNNABLE, RUNNING, Source, Spent, UNKNOWN, UNREAD, WAITING, Waker},
    histogram::Series,
    loss::Loss,
    target::Target,
};

use super::goroutine::{NOBODY, begins, key, known, ran, spent};
use crate::{maps::GOROUTINES, read, record, thread::off};

/// A goroutine becomes runnable `now`: put into `p`'s queue by the goroutine `waker`, each of which may be 0.
#[inline(always)]
pub fn ready(target: &Target, tid: u32, g: u64, source: Source, p: u64, waker: u64, now: u64) {
    let Some(goroutine) = known(target, g) else {
        return;
    };
    goroutine.parked = 0;
    match goroutine.state {
        WAITING => {
            wakes(target, goroutine, g);
            woken(target, goroutine, waker);
        }
        // It yields, or another has its g by now. None on a list of the runtime's ran until now.
        RUNNING if source as u32 != Source::InjectList as u32 => {
            if source as u32 == Source::Gosched as u32 {
                // Its sum means nothing. An atomic addition of 0 would become an operation that Linux has from 5.12 on only.
                spent(target, goroutine, Spent::Preempted, 1);
            }
            ran(target, goroutine, tid, now);
            if source as u32 == Source::Gosched as u32 {
                goroutine.reason = 0;
                goroutine.wakers = [NOBODY; CHAIN];
            } else {
                begins(target, goroutine, g);
            }
        }
        UNKNOWN | RUNNING => begins(target, goroutine, g),
        // Of two stamps the first counts.
        _ => return,
    }
    let go = &target.go;
    goroutine.state = RUNNABLE;
    goroutine.since = now;
    goroutine.source = source as u32;
    goroutine.tid = tid;
    goroutine.off = off::begin(target, tid, now);
    goroutine.queue = UNREAD;
    goroutine.idle = UNREAD;
    if p != 0
        && let (Some(head), Some(tail)) = (
            read::user::<u32>(p + u64::from(go.p_runqhead)),
            read::user::<u32>(p + u64::from(go.p_runqtail)),
        )
    {
        goroutine.queue = tail.wrapping_sub(head);
    }
    if let Some(idle) = read::user::<u32>(go.sched + u64::from(go.sched_npidle)) {
        goroutine.idle = idle;
    }
}

/// A wait is over: since when, and what for.
#[inline(always)]
pub fn wakes(target: &Target, goroutine: &mut Goroutine, g: u64) -> bool {
    match read::user::<u8>(g + u64::from(target.go.g_waitreason)) {
        Some(reason) => {
            goroutine.parked = goroutine.since;
            goroutine.reason = u32::from(reason).min(REASONS - 1);
            true
        }
        None => {
            record::lost(Loss::ReadFault);
            false
        }
    }
}

/// Takes note of who woke it, and of who had woken that one. `g` is that of the runtime's stack on the waker's thread, or the
/// waker itself.
#[inline(always)]
fn woken(target: &Target, goroutine: &mut Goroutine, g: u64) {
    goroutine.wakers = [NOBODY; CHAIN];
    if g == 0 {
        return;
    }
    let go = &target.go;
    let m: Option<u64> = read::user(g + u64::from(go.g_m));
    let Some(waker) = m.and_then(|m| read::user::<u64>(m + u64::from(go.m_curg))) else {
        return record::lost(Loss::ReadFault);
    };
    if waker == 0 {
        return;
    }
    let Some(waker) = GOROUTINES.get_ptr_mut(key(target, waker)) else {
        return;
    };
    // SAFETY: read only; it runs on this very thread.
    let waker = unsafe { &*waker };
    if waker.window != target.probes_since {
        return;
    }
    goroutine.wakers = [
        Waker {
            goid: waker.goid,
            startpc: waker.startpc,
            ran: if waker.state == RUNNING { waker.since } else { 0 },
        },
        waker.wakers[0],
        waker.wakers[1],
    ];
}

/// Counts a wait that ended at `until`.
#[inline(always)]
pub fn waited(target: &Target, goroutine: &Goroutine, until: u64) {
    let time = until.saturating_sub(goroutine.parked);
    record::value(target, Series::GoWaiting, goroutine.reason, time);
    record::part(target, Series::GoTime, goroutine.startpc as u32, goroutine.reason, time);
}
