pub mod assist;
pub mod gc;
mod goroutine;
pub mod handoff;
pub mod latency;
pub mod lists;
mod ready;
mod run;
pub mod sched;
pub mod stw;

use aya_ebpf::programs::ProbeContext;

use crate::arch;

/// First, second and third argument of a Go function.
#[inline(always)]
pub fn arguments(ctx: &ProbeContext) -> (u64, u64, u64) {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    arch::go_arguments(unsafe { &*ctx.regs })
}

/// The current g; on a system stack its g0.
#[inline(always)]
pub fn current(ctx: &ProbeContext) -> u64 {
    // SAFETY: as above.
    arch::go_g(unsafe { &*ctx.regs })
}
