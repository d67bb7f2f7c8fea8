//! Handoffs of Ps, by caller.

use agent_common::{go::handoff::IN_LINK_REGISTER, histogram::Series, hits::HitKind};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use crate::{arch, maps::probed, read, record};

/// runtime.handoffp(pp).
#[uprobe]
pub fn go_handoff(ctx: ProbeContext) -> u32 {
    let (tgid, _) = read::current();
    let Some((target, _)) = probed(tgid, HitKind::GoHandoff) else {
        return 0;
    };
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    let regs = unsafe { &*ctx.regs };
    let caller = match target.go.handoff_return {
        IN_LINK_REGISTER => Ok(arch::link(regs)),
        above => read::user(arch::ip_and_sp(regs).1 + u64::from(above)),
    };
    match caller {
        Ok(caller) => record::count(target, Series::GoHandoff, caller as u32),
        Err(at) => record::unread(at),
    }
    0
}
