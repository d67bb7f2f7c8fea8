pub mod poll;
pub mod wake;

use aya_ebpf::programs::ProbeContext;

/// The first argument of a Rust function: rdi (System V ABI, amd64).
#[inline(always)]
pub fn argument(ctx: &ProbeContext) -> u64 {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    unsafe { (*ctx.regs).rdi }
}
