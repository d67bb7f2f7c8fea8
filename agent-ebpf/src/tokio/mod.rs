pub mod poll;
pub mod wake;

use aya_ebpf::programs::ProbeContext;

/// First and second argument of a Rust function: rdi, rsi (System V ABI, amd64).
#[inline(always)]
pub fn arguments(ctx: &ProbeContext) -> (u64, u64) {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    let regs = unsafe { &*ctx.regs };
    (regs.rdi, regs.rsi)
}
