//! A goroutine becomes runnable: what it waited for, and which goroutine woke it.

use agent_common::{
    go::sched::{CHAIN, Goroutine, REASONS, RUNNABLE, RUNNING, Source, Spent, UNKNOWN, UNREAD, WAITING, Waker},
    histogram::Series,
    target::Target,
    thread::run_queue::OffCpu,
};

use super::goroutine::{NOBODY, begins, key, known, known_at, ran, spent};
use crate::{
    read, record,
    table::{self, Goroutines},
    thread::off_cpu,
};

/// A goroutine becomes runnable `now`: put into `p`'s queue by the goroutine `waker`, each of which may be 0.
#[inline(always)]
pub fn ready(target: &Target, tid: u32, g: u64, source: Source, p: u64, waker: u64, now: u64) {
    // Without closures: those may become functions, for all sources at once.
    let Some(goroutine) = known(target, g) else { return };
    let Some(goroutine) = leaves(target, tid, goroutine, g, source, waker, now) else {
        return;
    };
    let begin = Begin::of(target, tid, now);
    runnable(goroutine, source, tid, now, &begin);
    if p != 0
        && let (Ok(head), Ok(tail)) = (
            read::user::<u32>(p + u64::from(target.go.p_runqhead)),
            read::user::<u32>(p + u64::from(target.go.p_runqtail)),
        )
    {
        goroutine.queue = tail.wrapping_sub(head);
    }
}

/// What goroutines that become runnable together have in common.
pub struct Begin {
    off_cpu: OffCpu,
    idle: u32,
}

impl Begin {
    #[inline(always)]
    pub fn of(target: &Target, tid: u32, now: u64) -> Self {
        let idle = read::user::<u32>(target.go.sched + u64::from(target.go.sched_npidle));
        Self {
            off_cpu: off_cpu::begin(target, tid, now),
            idle: idle.unwrap_or(UNREAD),
        }
    }
}

/// A goroutine of an injected list becomes runnable; `place` is where it stands in the table.
#[inline(always)]
pub fn listed(target: &Target, tid: u32, g: u64, place: u32, now: u64, begin: &Begin) {
    if let Some(goroutine) = known_at(target, g, place)
        && let Some(goroutine) = leaves(target, tid, goroutine, g, Source::InjectList, 0, now)
    {
        runnable(goroutine, Source::InjectList, tid, now, begin);
    }
}

/// Ends its current state; None where it is runnable already.
#[inline(always)]
fn leaves<'a>(
    target: &Target,
    tid: u32,
    goroutine: &'a mut Goroutine,
    g: u64,
    source: Source,
    waker: u64,
    now: u64,
) -> Option<&'a mut Goroutine> {
    goroutine.parked = 0;
    match goroutine.state {
        WAITING => {
            wakes(target, goroutine, g);
            woken(target, goroutine, waker);
        }
        // Something else than the network woke it before it was read who waits.
        RUNNING if source as u32 == Source::Netpoll as u32 => return None,
        // It yields, or its g has been reused. One on an injected list was not running.
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
        // Runnable already: the first time counts.
        _ => return None,
    }
    Some(goroutine)
}

#[inline(always)]
fn runnable(goroutine: &mut Goroutine, source: Source, tid: u32, now: u64, begin: &Begin) {
    goroutine.state = RUNNABLE;
    goroutine.since = now;
    goroutine.source = source as u32;
    goroutine.tid = tid;
    goroutine.off_cpu = begin.off_cpu;
    goroutine.queue = UNREAD;
    goroutine.idle = begin.idle;
}

/// A wait is over: notes its begin and its reason.
#[inline(always)]
pub fn wakes(target: &Target, goroutine: &mut Goroutine, g: u64) -> bool {
    match read::user::<u8>(g + u64::from(target.go.g_waitreason)) {
        Ok(reason) => {
            goroutine.parked = goroutine.since;
            goroutine.reason = u32::from(reason).min(REASONS - 1);
            true
        }
        Err(at) => {
            record::unread(at);
            false
        }
    }
}

/// Notes the goroutine that woke it, and the wakers of that one. `g` is the g0 of the waker's thread, or the waker.
#[inline(always)]
fn woken(target: &Target, goroutine: &mut Goroutine, g: u64) {
    goroutine.wakers = [NOBODY; CHAIN];
    if g == 0 {
        return;
    }
    let go = &target.go;
    let m = read::user::<u64>(g + u64::from(go.g_m));
    let waker = match m.and_then(|m| read::user::<u64>(m + u64::from(go.m_curg))) {
        Ok(waker) => waker,
        Err(at) => return record::unread(at),
    };
    if waker == 0 {
        return;
    }
    let Some(waker) = table::get::<Goroutines>(key(target, waker)) else {
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
    let origin = target.go.origin(goroutine.startpc);
    record::sum(target, Series::GoTime, origin, goroutine.reason, time);
}
