//! The state of a thread: how long it was off-CPU, and when.

use agent_common::{
    hits::Plane,
    target::Target,
    thread::run_queue::{ASLEEP, INTERVALS, OffCpu, OffCpuInterval, THROTTLED, Thread},
};

use crate::{
    held,
    hits::is_open,
    table::{self, Table as _, Threads},
};

pub static NEW: Thread = Thread {
    known: 0,
    since: 0,
    asleep: 0,
    off_cpu: OffCpu {
        run_queue: 0,
        throttled: 0,
        blocked: 0,
    },
    target_id: 0,
    throttled: 0,
    interval_count: 0,
    intervals: [OffCpuInterval {
        begin: 0,
        length_and_kind: 0,
    }; INTERVALS as usize],
    last_begin: 0,
    last_end: 0,
    pad: [0; 6],
};

/// Whether the hooks on the kernel's scheduler have counted since `from`.
#[inline(always)]
fn counted(target: &Target, from: u64) -> bool {
    target.run_queue_since != 0
        && from >= target.run_queue_since
        // Where the programs ended the window, nothing was seen since.
        && is_open(target, Plane::Threads)
}

/// The entry of a thread, and whether it is new: then nothing from before counts. None when the map is full.
#[inline(always)]
pub fn thread(target: &Target, tid: u32) -> Option<(&'static mut Thread, bool)> {
    let found = table::get::<Threads>(tid).or_else(|| table::at::<Threads>(add(target, tid)))?;
    // SAFETY: changed for this thread only: with its run queue's lock held, or by the thread itself while it runs.
    let found = unsafe { &mut *found };
    if found.target_id != target.id {
        *found = NEW;
        found.target_id = target.id;
    }
    let new = found.known < target.run_queue_since;
    if new {
        (found.since, found.asleep) = (0, 0);
    }
    Some((found, new))
}

/// An interval begins on the current thread, which is followed from now on. Returns its off-CPU time so far.
#[inline(always)]
pub fn begin(target: &Target, tid: u32, now: u64) -> OffCpu {
    if !counted(target, now) {
        return NEW.off_cpu;
    }
    let Some((thread, new)) = thread(target, tid) else {
        return NEW.off_cpu;
    };
    if new {
        thread.known = now;
    }
    // A wakeup that came while it was still on its CPU may have been taken for the end of a sleep.
    thread.since = 0;
    thread.off_cpu
}

/// Off-CPU time of a thread until `now`; None unless it was followed since `from`.
#[inline(always)]
pub fn sums(target: &Target, tid: u32, from: u64, now: u64) -> Option<OffCpu> {
    if !counted(target, from) {
        return None;
    }
    let thread = table::get::<Threads>(tid)?;
    // SAFETY: read only; a concurrent change gives sums from just before it or after.
    let thread = unsafe { &*thread };
    if thread.target_id != target.id || thread.known < target.run_queue_since || thread.known > from {
        return None;
    }
    let mut off = thread.off_cpu;
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

/// The last time on a run queue of a thread that runs now, as far as it lies between `from` and `to`: (time, throttled).
#[inline(always)]
pub fn last_wait(target: &Target, tid: u32, from: u64, to: u64) -> (u64, bool) {
    let Some(thread) = table::get::<Threads>(tid) else {
        return (0, false);
    };
    // SAFETY: as in `sums`; it is the current thread's own.
    let thread = unsafe { &*thread };
    let (begin, end) = (thread.last_begin.max(from), thread.last_end.min(to));
    if thread.target_id != target.id || end <= begin {
        return (0, false);
    }
    (end - begin, thread.throttled != 0)
}

/// Off-CPU time between `from` and `to`, both in the past, of a thread that ran at `to`, from the intervals that are kept; None unless it
/// was followed since `from`.
#[inline(always)]
pub fn between(target: &Target, tid: u32, from: u64, to: u64) -> Option<OffCpu> {
    if !counted(target, from) {
        return None;
    }
    let mut off = NEW.off_cpu;
    let Some(thread) = table::get::<Threads>(tid) else {
        // It was never off-CPU since the hooks count, or the map was full.
        let place = add(target, tid);
        // SAFETY: as in `thread`.
        let thread = unsafe { &mut *Threads::values().get_ptr_mut(place)? };
        // Another CPU has added it meanwhile.
        if thread.target_id != 0 {
            return None;
        }
        thread.target_id = target.id;
        return Some(off);
    };
    // SAFETY: as in `sums`.
    let thread = unsafe { &*thread };
    if thread.target_id != target.id || thread.known < target.run_queue_since {
        return Some(off);
    }
    if thread.known > from {
        return None;
    }
    for interval in &thread.intervals {
        let time = interval.end().min(to).saturating_sub(interval.begin.max(from));
        match interval.kind() {
            ASLEEP => off.blocked += time,
            THROTTLED => off.throttled += time,
            _ => off.run_queue += time,
        }
    }
    Some(off)
}

/// Adds a thread, and returns its place. By reference: a copy would take a third of the program's stack.
#[inline(always)]
fn add(target: &Target, tid: u32) -> u32 {
    held::add::<Threads>(target, tid, &NEW)
}
