//! From runnable to running: stamped where a goroutine becomes runnable, measured in runtime.execute.

use agent_common::{
    event::Kind,
    go::{
        ABSENT,
        sched::{Runnable, RunnableKey, Source, Wait},
    },
    histogram::Series,
    hits::Probe,
    loss::Loss,
    target::Target,
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::arguments;
use crate::{
    maps::{GO_RUNNABLE, probed},
    read, record,
};

/// Goroutines walked of one injected list.
const LIST_BOUND: u32 = 64;
/// An injected goroutine that netpollready stamped this recently keeps that stamp, ns.
const SAME_POLL: u64 = 1_000_000;

/// runtime.runqput(pp, gp, next): ready, newproc and goyield all end here.
#[uprobe]
pub fn go_runqput(ctx: ProbeContext) -> u32 {
    stamp(arguments(&ctx).1, Source::RunqPut, Probe::GoRunqput);
    0
}

/// runtime.goschedImpl(gp, preempted).
#[uprobe]
pub fn go_gosched(ctx: ProbeContext) -> u32 {
    stamp(arguments(&ctx).0, Source::Gosched, Probe::GoGosched);
    0
}

/// runtime.exitsyscallNoP(gp), before go1.26 exitsyscall0(gp).
#[uprobe]
pub fn go_exitsyscall(ctx: ProbeContext) -> u32 {
    stamp(arguments(&ctx).0, Source::ExitSyscall, Probe::GoExitsyscall);
    0
}

/// runtime.netpollready(toRun, pd, mode): a g waits in pd.rg, pd.wg or both (runtime/netpoll.go).
#[uprobe]
pub fn go_netpoll(ctx: ProbeContext) -> u32 {
    let (_, pd, mode) = arguments(&ctx);
    let (tgid, tid) = read::current();
    let Some(target) = probed(tgid, Probe::GoNetpoll) else {
        return 0;
    };
    // pdReady is 1, pdWait is 2: neither is a goroutine.
    let waiter = |offset: u32| match read::user::<u64>(pd + u64::from(offset)) {
        Some(g) if g > 2 => insert(target, tid, g, Source::Netpoll),
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

/// runtime.injectglist(glist): what netpoll found, and goroutines that waited on lists of the runtime's own.
#[uprobe]
pub fn go_injectglist(ctx: ProbeContext) -> u32 {
    let (tgid, tid) = read::current();
    let Some(target) = probed(tgid, Probe::GoInjectglist) else {
        return 0;
    };
    let Some(mut g) = read::user::<u64>(arguments(&ctx).0) else {
        return 0;
    };
    let now = read::now();
    for _ in 0..LIST_BOUND {
        if g == 0 {
            return 0;
        }
        let key = RunnableKey {
            g,
            slot: u64::from(target.slot),
        };
        // SAFETY: copied at once; a concurrent change gives one or the other stamp.
        let stamped = unsafe { GO_RUNNABLE.get(key) }.is_some_and(|old| now.saturating_sub(old.since) < SAME_POLL);
        if !stamped {
            insert(target, tid, g, Source::InjectList);
        }
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

/// runtime.execute(gp, inheritTime): the goroutine runs now.
#[uprobe]
pub fn go_execute(ctx: ProbeContext) -> u32 {
    let g = arguments(&ctx).0;
    let (tgid, _) = read::current();
    let Some(target) = probed(tgid, Probe::GoExecute) else {
        return 0;
    };
    let key = RunnableKey {
        g,
        slot: u64::from(target.slot),
    };
    // SAFETY: only this thread runs the goroutine now; copied before it is removed.
    let Some(runnable) = (unsafe { GO_RUNNABLE.get(key) }).copied() else {
        record::count(target, Series::GoUnstamped, 0);
        return 0;
    };
    let _ = GO_RUNNABLE.remove(key);
    if runnable.since < target.probes_since {
        record::count(target, Series::GoUnstamped, 0);
        return 0;
    }
    let now = read::now();
    let waited = now.saturating_sub(runnable.since);
    record::value(target, Series::GoRunnable, 0, waited);
    if waited >= target.slow_wait && slow(target, g, runnable, now).is_none() {
        record::lost(Loss::ReadFault);
    }
    0
}

#[inline(always)]
fn stamp(g: u64, source: Source, probe: Probe) {
    let (tgid, tid) = read::current();
    if let Some(target) = probed(tgid, probe) {
        insert(target, tid, g, source);
    }
}

#[inline(always)]
fn insert(target: &Target, tid: u32, g: u64, source: Source) {
    let key = RunnableKey {
        g,
        slot: u64::from(target.slot),
    };
    let runnable = Runnable {
        since: read::now(),
        source: source as u32,
        tid,
    };
    if GO_RUNNABLE.insert(key, runnable, 0).is_err() {
        record::lost(Loss::GoRunnableFull);
    }
}

#[inline(always)]
fn slow(target: &Target, g: u64, runnable: Runnable, now: u64) -> Option<()> {
    let go = &target.go;
    let parent = if go.g_parent_goid == ABSENT {
        0
    } else {
        read::user(g + u64::from(go.g_parent_goid))?
    };
    record::event(Wait {
        header: record::header(Kind::GoWait, target.slot, now),
        since: runnable.since,
        goid: read::user(g + u64::from(go.g_goid))?,
        parent_goid: parent,
        gopc: read::user(g + u64::from(go.g_gopc))?,
        startpc: read::user(g + u64::from(go.g_startpc))?,
        source: runnable.source,
        wait_reason: u32::from(read::user::<u8>(g + u64::from(go.g_waitreason))?),
    });
    Some(())
}
