pub mod busy;
pub mod poll;
pub mod wake;

use aya_ebpf::programs::ProbeContext;

use crate::arch;

/// The first argument of a Rust function.
#[inline(always)]
pub fn argument(ctx: &ProbeContext) -> u64 {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    unsafe { *arch::arguments(&*ctx.regs)[0] }
}
