//! States of goroutines. runtime.execute begins running; park_m, goschedImpl and goexit0 end it; runqput and similar functions end
//! waiting.

use agent_common::{
    go::sched::{RUNNABLE, RUNNING, Source, Spent, UNKNOWN, WAITING},
    histogram::Series,
    hits::HitKind,
    loss::Loss,
    target::Target,
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::{
    arguments, current,
    goroutine::{key, known, ran, spent},
    ready::{Begin, listed, ready, waited, wakes},
    run::starts,
};
use crate::{
    maps::probed,
    read, record,
    table::{self, Goroutines, Table as _},
    thread::off_cpu,
};

/// Most goroutines that are read of one injected list.
const LIST_BOUND: u32 = 64;
/// An injected goroutine that netpollready stamped this recently keeps that stamp, ns.
const SAME_POLL: u64 = 1_000_000;

/// runtime.runqput(pp, gp, next): ready, newproc and goyield all end here.
#[uprobe]
pub fn go_runqput(ctx: ProbeContext) -> u32 {
    let (p, g, _) = arguments(&ctx);
    let (tgid, tid) = read::current();
    if let Some((target, now)) = probed(tgid, HitKind::GoRunqput) {
        ready(target, tid, g, Source::RunqPut, p, current(&ctx), now);
    }
    0
}

/// runtime.goschedImpl(gp, preempted); before go1.22 goschedImpl(gp).
#[uprobe]
pub fn go_gosched(ctx: ProbeContext) -> u32 {
    let g = arguments(&ctx).0;
    let (tgid, tid) = read::current();
    if let Some((target, now)) = probed(tgid, HitKind::GoGosched) {
        ready(target, tid, g, Source::Gosched, 0, 0, now);
    }
    0
}

/// runtime.exitsyscallNoP(gp), before go1.26 exitsyscall0(gp).
#[uprobe]
pub fn go_exitsyscall(ctx: ProbeContext) -> u32 {
    let g = arguments(&ctx).0;
    let (tgid, tid) = read::current();
    if let Some((target, now)) = probed(tgid, HitKind::GoExitsyscall) {
        ready(target, tid, g, Source::ExitSyscall, 0, 0, now);
    }
    0
}

/// runtime.netpollready(toRun, pd, mode): a g waits in pd.rg, pd.wg or both (runtime/netpoll.go).
#[uprobe]
pub fn go_netpoll(ctx: ProbeContext) -> u32 {
    let (_, pd, mode) = arguments(&ctx);
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoNetpoll) else {
        return 0;
    };
    // pdReady is 1, pdWait is 2: neither is a goroutine.
    let waiter = |offset: u32| match read::user::<u64>(pd + u64::from(offset)) {
        Some(g) if g > 2 => ready(target, tid, g, Source::Netpoll, 0, 0, now),
        Some(_) => {}
        None => record::lost(Loss::ReadFault),
    };
    let mode = mode as i32;
    if mode == i32::from(b'r') || mode == i32::from(b'r') + i32::from(b'w') {
        waiter(target.go.poll_rg);
    }
    if mode == i32::from(b'w') || mode == i32::from(b'r') + i32::from(b'w') {
        waiter(target.go.poll_wg);
    }
    0
}

/// runtime.injectglist(glist): goroutines that netpoll found ready, or that were on another list of the runtime's.
#[uprobe]
pub fn go_injectglist(ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoInjectglist) else {
        return 0;
    };
    let Some(mut g) = read::user::<u64>(arguments(&ctx).0) else {
        record::lost(Loss::ReadFault);
        return 0;
    };
    if g == 0 {
        return 0;
    }
    let begin = Begin::of(target, tid, now);
    for _ in 0..LIST_BOUND {
        if g == 0 {
            return 0;
        }
        injected(target, tid, g, now, &begin);
        match read::user::<u64>(g + u64::from(target.go.g_schedlink)) {
            Some(next) => g = next,
            None => {
                record::lost(Loss::ReadFault);
                return 0;
            }
        }
    }
    if g != 0 {
        record::lost(Loss::GoListTooLong);
    }
    0
}

/// A goroutine of an injected list. Not in line, as [`crate::held::insert`].
#[inline(never)]
fn injected(target: &Target, tid: u32, g: u64, now: u64, begin: &Begin) {
    let place = table::find::<Goroutines>(key(target, g));
    let stamped = Goroutines::values().get_ptr_mut(place).is_some_and(|known| {
        // SAFETY: read only; a concurrent change gives one or the other stamp.
        let known = unsafe { &*known };
        known.state == RUNNABLE && now.saturating_sub(known.since) < SAME_POLL
    });
    if !stamped {
        listed(target, tid, g, place, now, begin);
    }
}

/// runtime.park_m(gp): the goroutine begins to wait.
#[uprobe]
pub fn go_park(ctx: ProbeContext) -> u32 {
    let g = arguments(&ctx).0;
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoPark) else {
        return 0;
    };
    if let Some(goroutine) = known(target, g) {
        ran(target, goroutine, tid, now);
        goroutine.state = WAITING;
        goroutine.since = now;
    }
    0
}

/// runtime.goexit0(gp): the goroutine ends; its g may be reused.
#[uprobe]
pub fn go_exit(ctx: ProbeContext) -> u32 {
    let g = arguments(&ctx).0;
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoExit) else {
        return 0;
    };
    if let Some(goroutine) = known(target, g) {
        ran(target, goroutine, tid, now);
        // Only its count is used. For an addition of 0 the compiler emits an atomic or, which Linux has since 5.12.
        spent(target, goroutine, Spent::Ended, 1);
        goroutine.state = UNKNOWN;
    }
    0
}

/// runtime.execute(gp, inheritTime): the goroutine runs now.
#[uprobe]
pub fn go_execute(ctx: ProbeContext) -> u32 {
    let g = arguments(&ctx).0;
    let (tgid, tid) = read::current();
    let Some((target, now)) = probed(tgid, HitKind::GoExecute) else {
        return 0;
    };
    let Some(goroutine) = known(target, g) else {
        return 0;
    };
    if goroutine.state == RUNNABLE {
        starts(target, goroutine, g, tid, now);
    } else {
        record::count(target, Series::GoUnstamped, 0);
        // Not seen as runnable: a worker of the runtime's that is run directly, or a wait that ended before it began.
        if goroutine.state == WAITING && wakes(target, goroutine, g) {
            waited(target, goroutine, now);
        }
    }
    goroutine.state = RUNNING;
    goroutine.since = now;
    goroutine.tid = tid;
    goroutine.off_cpu = off_cpu::begin(target, tid, now);
    0
}
