//! What is known of a thread: how long it was off its core, and when.

use agent_common::{
    target::{HOOKS_OPEN, Target},
    thread::run_queue::{ASLEEP, Away, KEPT, Off, THROTTLED, Thread},
};

use crate::maps::THREADS;

pub static NEW: Thread = Thread {
    since: 0,
    asleep: 0,
    off: Off {
        run_queue: 0,
        throttled: 0,
        blocked: 0,
    },
    last_begin: 0,
    last_end: 0,
    slot: 0,
    throttled: 0,
    away: [Away {
        begin: 0,
        end: 0,
        kind: 0,
    }; KEPT as usize],
    aways: 0,
};

/// How long a thread of `target` was off its core until `now`; None unless the hooks have counted since `from`.
#[inline(always)]
pub fn sums(target: &Target, tid: u32, from: u64, now: u64) -> Option<Off> {
    if target.flags & HOOKS_OPEN == 0 || from < target.hooks_since {
        return None;
    }
    let Some(thread) = THREADS.get_ptr_mut(tid) else {
        // It never left its core.
        return Some(Off::default());
    };
    // SAFETY: read only; a concurrent change gives sums from just before it or after.
    let thread = unsafe { &*thread };
    if thread.slot != target.slot {
        return Some(Off::default());
    }
    let mut off = thread.off;
    if thread.since >= from && thread.since < now {
        let waits = now - thread.since;
        if thread.throttled != 0 {
            off.throttled += waits;
        } else {
            off.run_queue += waits;
        }
    }
    Some(off)
}

/// Of the stretch from `from` to `to`, what the last wait for a core of a thread that runs now took: (time, throttled).
#[inline(always)]
pub fn last_wait(target: &Target, tid: u32, from: u64, to: u64) -> (u64, bool) {
    let Some(thread) = THREADS.get_ptr_mut(tid) else {
        return (0, false);
    };
    // SAFETY: as in `sums`; it is the current thread's own.
    let thread = unsafe { &*thread };
    let (begin, end) = (thread.last_begin.max(from), thread.last_end.min(to));
    if thread.slot != target.slot || end <= begin {
        return (0, false);
    }
    (end - begin, thread.throttled != 0)
}

/// Of the time from `from` to `to`, which are both over, what a thread was off its core, as far as the last times are
/// remembered; None unless the hooks have counted since `from`.
#[inline(always)]
pub fn between(target: &Target, tid: u32, from: u64, to: u64) -> Option<Off> {
    if target.flags & HOOKS_OPEN == 0 || from < target.hooks_since {
        return None;
    }
    let mut off = Off::default();
    let Some(thread) = THREADS.get_ptr_mut(tid) else {
        return Some(off);
    };
    // SAFETY: as in `sums`.
    let thread = unsafe { &*thread };
    if thread.slot != target.slot {
        return Some(off);
    }
    for away in &thread.away {
        let time = away.end.min(to).saturating_sub(away.begin.max(from));
        match away.kind {
            ASLEEP => off.blocked += time,
            THROTTLED => off.throttled += time,
            _ => off.run_queue += time,
        }
    }
    Some(off)
}
