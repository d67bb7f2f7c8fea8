//! Goroutines that the runtime makes runnable in lists: those that netpoll found ready, and those that it injects into run queues.

use agent_common::{
    go::sched::{RUNNABLE, Source},
    hits::HitKind,
    loss::Loss,
    target::Target,
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::{
    arguments,
    goroutine::key,
    ready::{Begin, listed, ready},
};
use crate::{
    log,
    maps::probed,
    read, record,
    table::{self, Goroutines},
};

/// Most goroutines that are read of one injected list. With messages the verifier has several times as much to follow for each, of the 1,000,000 instructions
/// that it follows at most.
const LIST_BOUND: u32 = 64;
const LIST_BOUND_WITH_MESSAGES: u32 = 16;
/// An injected goroutine that netpollready stamped this recently keeps that stamp, ns.
const SAME_POLL: u64 = 1_000_000;

/// Of runtime.netpollready.
const READ: i32 = b'r' as i32;
const WRITE: i32 = b'w' as i32;
const READ_WRITE: i32 = READ + WRITE;

/// runtime.netpollready(toRun, pd, mode): a g waits in pd.rg, pd.wg or both (runtime/netpoll.go).
#[uprobe]
pub fn go_netpoll(ctx: ProbeContext) -> u32 {
    let (_, pd, mode) = arguments(&ctx);
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoNetpoll) else {
        return 0;
    };
    let (mut reader, mut writer) = (0, 0);
    if matches!(mode as i32, READ | READ_WRITE) {
        reader = pd + u64::from(target.go.poll_rg);
    }
    if matches!(mode as i32, WRITE | READ_WRITE) {
        writer = pd + u64::from(target.go.poll_wg);
    }
    polled(target, tid, reader, now);
    polled(target, tid, writer, now);
    0
}

/// The goroutine that waits at `waiter`, pd.rg or pd.wg, becomes runnable; 0 is neither. Not in line, as [`crate::held::insert`].
#[inline(never)]
fn polled(target: &Target, tid: u32, waiter: u64, now: u64) {
    if waiter == 0 {
        return;
    }
    match read::user::<u64>(waiter) {
        // pdReady is 1, pdWait is 2: neither is a goroutine.
        Ok(g) if g > 2 => ready(target, tid, g, Source::Netpoll, 0, 0, now),
        Ok(_) => {}
        Err(at) => record::unread(at),
    }
}

/// runtime.injectglist(glist): goroutines that netpoll found ready, or that were on another list of the runtime's.
#[uprobe]
pub fn go_injectglist(ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoInjectglist) else {
        return 0;
    };
    let mut g = match read::user::<u64>(arguments(&ctx).0) {
        Ok(g) => g,
        Err(at) => {
            record::unread(at);
            return 0;
        }
    };
    if g == 0 {
        return 0;
    }
    let begin = Begin::of(target, tid, now);
    let bound = if log::is_on() {
        LIST_BOUND_WITH_MESSAGES
    } else {
        LIST_BOUND
    };
    for _ in 0..bound {
        if g == 0 {
            return 0;
        }
        injected(target, tid, g, now, &begin);
        match read::user::<u64>(g + u64::from(target.go.g_schedlink)) {
            Ok(next) => g = next,
            Err(at) => {
                record::unread(at);
                return 0;
            }
        }
    }
    if g != 0 {
        record::lost(Loss::GoListTooLong);
        log::long_list(u64::from(target.pid), g);
    }
    0
}

/// A goroutine of an injected list. Not in line, as [`crate::held::insert`].
#[inline(never)]
fn injected(target: &Target, tid: u32, g: u64, now: u64, begin: &Begin) {
    let place = table::find::<Goroutines>(key(target, g));
    let stamped = table::at::<Goroutines>(place).is_some_and(|known| {
        // SAFETY: read only; a concurrent change gives one or the other stamp.
        let known = unsafe { &*known };
        known.state == RUNNABLE && now.saturating_sub(known.since) < SAME_POLL
    });
    if !stamped {
        listed(target, tid, g, place, now, begin);
    }
}
