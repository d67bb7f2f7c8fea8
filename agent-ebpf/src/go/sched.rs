//! States of goroutines. runtime.execute begins running; park_m, goschedImpl and goexit0 end it; runqput and similar functions end
//! waiting.

use agent_common::{
    go::sched::{RUNNABLE, RUNNING, Source, Spent, UNKNOWN, WAITING},
    histogram::Series,
    hits::HitKind,
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::{
    arguments, current,
    goroutine::{known, ran, spent},
    ready::{ready, waited, wakes},
    run::starts,
};
use crate::{log, maps::probed, read, record, thread::off_cpu};

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
        if goroutine.state == RUNNING {
            log::runs_already(u64::from(target.pid), goroutine.goid, g);
        }
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
