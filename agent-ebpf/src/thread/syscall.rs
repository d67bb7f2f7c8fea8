//! From the entry of a system call to its exit, on the thread that makes it.

use agent_common::{
    event::Kind,
    histogram::Series,
    hits::HitKind,
    target::{IS_GO, SharedMap, Target},
    thread::syscall::{Call, Syscall},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    arch, clock, held,
    maps::{SYSCALLS, hooked},
    read, record,
};

/// sys_enter(regs, id).
#[btf_tracepoint(function = "sys_enter")]
pub fn thread_sys_enter(ctx: BtfTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    let (tgid, tid) = read::current();
    let Some(target) = hooked(tgid, HitKind::ThreadSyscall) else {
        return 0;
    };
    let call = Call {
        since: clock::now(),
        target_id: target.id,
        number: number as u32,
    };
    if let Some(old) = SYSCALLS.get_ptr_mut(tid) {
        // SAFETY: this thread's own; removed only when its window is closed.
        unsafe { *old = call };
        return 0;
    }
    held::insert::<{ SharedMap::Syscalls as usize }, _, _>(&SYSCALLS, target, &tid, &call);
    0
}

/// sys_exit(regs, ret).
#[btf_tracepoint(function = "sys_exit")]
pub fn thread_sys_exit(_ctx: BtfTracePointContext) -> i32 {
    let (tgid, tid) = read::current();
    let Some(target) = hooked(tgid, HitKind::ThreadSyscall) else {
        return 0;
    };
    let Some(call) = SYSCALLS.get_ptr_mut(tid) else {
        return 0;
    };
    // SAFETY: this thread's own; removed only when its window is closed.
    let call = unsafe { &mut *call };
    let since = core::mem::replace(&mut call.since, 0);
    if since == 0 || since < target.threads_since || call.target_id != target.id {
        return 0;
    }
    over(target, call.number, since, clock::now());
    0
}

#[inline(always)]
fn over(target: &Target, number: u32, since: u64, now: u64) {
    let took = now.saturating_sub(since);
    record::value(target, Series::Syscall, number, took);
    // System calls on a g0 stack are the runtime's own.
    let (goid, startpc) = goroutine(target).unwrap_or((0, 0));
    if goid != 0 {
        record::sum(target, Series::GoSyscall, target.go.origin(startpc), 0, took);
    }
    if took >= target.slow_wait && !arch::is_idle(number) {
        record::event(Syscall {
            header: record::header(Kind::Syscall, target.id, now),
            since,
            goid,
            startpc,
            number,
            pad: 0,
        });
    }
}

/// goid of the goroutine on whose stack this thread runs, 0 on a g0; and its start function.
#[inline(always)]
fn goroutine(target: &Target) -> Option<(u64, u64)> {
    if target.flags & IS_GO == 0 || target.go.tls_g == 0 {
        return None;
    }
    let g = arch::thread_g(target)?;
    let goid: u64 = read::user(g + u64::from(target.go.g_goid)).ok()?;
    Some((goid, read::user(g + u64::from(target.go.g_startpc)).ok()?))
}
