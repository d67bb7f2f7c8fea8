//! The state of a goroutine in a window, and what it spent its time on.

use agent_common::{
    go::sched::{CHAIN, Goroutine, GoroutineKey, LONG, RUNNING, Spent, UNKNOWN, UNREAD, Waker},
    histogram::Series,
    target::Target,
    thread::run_queue::OffCpu,
};

use crate::{
    held, read, record,
    table::{self, Goroutines},
    thread::off_cpu,
};

static NEW: Goroutine = Goroutine {
    window: 0,
    since: 0,
    parked: 0,
    goid: 0,
    startpc: 0,
    state: UNKNOWN,
    source: 0,
    reason: 0,
    tid: 0,
    queue: UNREAD,
    idle: UNREAD,
    off_cpu: OffCpu {
        run_queue: 0,
        throttled: 0,
        blocked: 0,
    },
    wakers: [NOBODY; CHAIN],
    pad: [0; 4],
};
pub const NOBODY: Waker = Waker {
    goid: 0,
    startpc: 0,
    ran: 0,
};

#[inline(always)]
pub fn key(target: &Target, g: u64) -> GoroutineKey {
    GoroutineKey {
        g,
        target_id: u64::from(target.id),
    }
}

/// The entry of a goroutine in this window; None when the map is full.
#[inline(always)]
pub fn known(target: &Target, g: u64) -> Option<&'static mut Goroutine> {
    known_at(target, g, table::find::<Goroutines>(key(target, g)))
}

/// The same, where its place was looked for already.
#[inline(always)]
pub fn known_at(target: &Target, g: u64, place: u32) -> Option<&'static mut Goroutine> {
    let found = table::at::<Goroutines>(place)
        .or_else(|| table::at::<Goroutines>(held::add::<Goroutines>(target, key(target, g), &NEW)))?;
    // SAFETY: the runtime changes a goroutine's state on one thread at a time.
    let found = unsafe { &mut *found };
    if found.window != target.probes_since {
        found.window = target.probes_since;
        found.state = UNKNOWN;
        found.wakers = [NOBODY; CHAIN];
        identify(target, found, g);
    }
    Some(found)
}

/// Reads goid and start function: a g is reused when its goroutine has ended. Rare, so not inlined.
#[inline(never)]
fn identify(target: &Target, goroutine: &mut Goroutine, g: u64) {
    let go = &target.go;
    (goroutine.goid, goroutine.startpc) = (0, 0);
    let goid = read::user(g + u64::from(go.g_goid));
    let both = goid.and_then(|goid| Ok((goid, read::user(g + u64::from(go.g_startpc))?)));
    match both {
        Ok(both) => (goroutine.goid, goroutine.startpc) = both,
        Err(at) => record::unread(at),
    }
}

/// It may be another goroutine than the last one with this g.
#[inline(always)]
pub fn begins(target: &Target, goroutine: &mut Goroutine, g: u64) {
    goroutine.reason = 0;
    goroutine.wakers = [NOBODY; CHAIN];
    identify(target, goroutine, g);
}

#[inline(always)]
pub fn spent(target: &Target, goroutine: &Goroutine, on: Spent, time: u64) {
    let origin = target.go.origin(goroutine.startpc);
    record::sum(target, Series::GoTime, origin, on as u32, time);
}

/// The goroutine stops running: splits the time that it ran.
#[inline(always)]
pub fn ran(target: &Target, goroutine: &mut Goroutine, tid: u32, now: u64) {
    if goroutine.state != RUNNING {
        return;
    }
    let time = now.saturating_sub(goroutine.since);
    if time >= LONG {
        spent(target, goroutine, Spent::Long, time);
    }
    // It may return from a system call, which is on the same thread.
    let off = match off_cpu::sums(target, tid, goroutine.since, now) {
        Some(off) if tid == goroutine.tid => off,
        _ => return spent(target, goroutine, Spent::RunningUnsplit, time),
    };
    let before = goroutine.off_cpu;
    let parts = [
        (Spent::RunningRunQueue, off.run_queue.saturating_sub(before.run_queue)),
        (Spent::RunningThrottled, off.throttled.saturating_sub(before.throttled)),
        (Spent::Blocked, off.blocked.saturating_sub(before.blocked)),
    ];
    let mut left = time;
    for (on, part) in parts {
        let part = part.min(left);
        if part > 0 {
            left -= part;
            spent(target, goroutine, on, part);
        }
    }
    spent(target, goroutine, Spent::Running, left);
}
