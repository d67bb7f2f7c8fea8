//! From a task's wake (or spawn, or yield) to its poll.

use agent_common::{
    histogram::Series,
    hits::HitKind,
    loss::Loss,
    target::Target,
    tokio::wake::{IN_RDI, IN_RDX, IN_RSI, ON_STACK, POLLED, SiteKey, WokenKey},
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use crate::{
    arch, held, log,
    maps::probed,
    read::{self, Unreadable},
    record,
    table::{self, Sites, Woken},
};

/// Schedule::schedule(&self, task), yield_now(&self, task): it will be polled. Only the first wake since its last poll counts.
#[uprobe]
pub fn tokio_schedule(ctx: ProbeContext) -> u32 {
    woken(&ctx, HitKind::TokioSchedule);
    0
}

/// OwnedTasks::bind_inner(&self, task): a new task, whatever was at its address before.
#[uprobe]
pub fn tokio_spawn(ctx: ProbeContext) -> u32 {
    woken(&ctx, HitKind::TokioSpawn);
    0
}

#[inline(always)]
fn woken(ctx: &ProbeContext, kind: HitKind) {
    let (tgid, _) = read::current();
    let Some((target, now)) = probed(tgid, kind) else {
        return;
    };
    let target_id = u64::from(target.id);
    let task = match argument(ctx, target) {
        Ok(Some(task)) => task,
        Ok(None) => return,
        Err(at) => return record::unread(at),
    };
    let key = WokenKey { task, target_id };
    if let Some(woken) = table::get::<Woken>(key) {
        // SAFETY: one word, read and written whole; two wakes at once leave one of the two times.
        let woken = unsafe { &mut *woken };
        if kind as u32 == HitKind::TokioSpawn as u32 || *woken & POLLED != 0 || *woken < target.probes_since {
            *woken = now;
        }
        return;
    }
    let _ = held::add::<Woken>(target, key, &now);
}

/// The pointer to the task's header, from its location at this instruction; None where that is not known.
#[inline(always)]
fn argument(ctx: &ProbeContext, target: &Target) -> Result<Option<u64>, Unreadable> {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it. Volatile, so that the compiler does not make one
    // access with a computed offset of the three, which the verifier refuses on a context.
    let register = |register: *const u64| unsafe { core::ptr::read_volatile(register) };
    // SAFETY: as above.
    let regs = unsafe { &*ctx.regs };
    let [first, second, third] = arch::arguments(regs);
    let (first, second, third) = (register(first), register(second), register(third));
    let (ip, stack) = arch::ip_and_sp(regs);
    // SAFETY: written by user space before the probe is attached, never changed.
    let location = table::get::<Sites>(SiteKey {
        ip,
        target_id: u64::from(target.id),
    })
    .map(|location| unsafe { *location });
    match location {
        Some(IN_RDI) => Ok(Some(first)),
        Some(IN_RSI) => Ok(Some(second)),
        Some(IN_RDX) => Ok(Some(third)),
        Some(location) if location & ON_STACK != 0 => read::user(stack + u64::from(location & !ON_STACK)).map(Some),
        _ => {
            record::lost(Loss::SiteUnknown);
            log::unknown_site(u64::from(target.pid), ip);
            Ok(None)
        }
    }
}

/// The task is polled at `now`.
#[inline(always)]
pub fn polled(target: &Target, task: u64, now: u64) {
    let key = WokenKey {
        task,
        target_id: u64::from(target.id),
    };
    if let Some(woken) = table::get::<Woken>(key) {
        // SAFETY: a notified task is polled by one thread only.
        let since = unsafe { core::mem::replace(&mut *woken, now | POLLED) };
        if since & POLLED != 0 || since < target.probes_since {
            return;
        }
        record::value(target, Series::TokioWake, 0, now.saturating_sub(since));
    }
}
