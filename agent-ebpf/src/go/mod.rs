pub mod gc;
mod goroutine;
mod ready;
pub mod sched;
pub mod stw;
mod turn;

use aya_ebpf::programs::ProbeContext;

/// First, second and third argument of a Go function: AX, BX, CX of the register ABI (go1.17 and later, amd64;
/// src/cmd/compile/abi-internal.md).
#[inline(always)]
pub fn arguments(ctx: &ProbeContext) -> (u64, u64, u64) {
    // SAFETY: a uprobe's context is the pt_regs of the thread that hit it.
    let regs = unsafe { &*ctx.regs };
    (regs.rax, regs.rbx, regs.rcx)
}

/// The g that runs: R14 of the register ABI (amd64); on a stack of the runtime's own, that stack's g0.
#[inline(always)]
pub fn current(ctx: &ProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).r14 }
}
