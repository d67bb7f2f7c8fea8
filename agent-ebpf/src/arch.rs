//! What depends on the machine: where each calling convention has its arguments, and where the kernel keeps a thread's g.
//!
//! Go: ABIInternal (go1.18 and later, src/cmd/compile/abi-internal.md). Rust: System V on amd64, AAPCS64 on arm64.

use agent_common::target::Target;
use aya_ebpf::{bindings::pt_regs, helpers::bpf_get_current_task};

use crate::read::{self, kernel};

#[cfg(bpf_target_arch = "x86_64")]
mod machine {
    use super::pt_regs;

    /// AX, BX, CX.
    #[inline(always)]
    pub fn go_arguments(regs: &pt_regs) -> (u64, u64, u64) {
        (regs.rax, regs.rbx, regs.rcx)
    }

    /// DI.
    #[inline(always)]
    pub fn go_fourth_argument(regs: &pt_regs) -> u64 {
        regs.rdi
    }

    /// R14.
    #[inline(always)]
    pub fn go_g(regs: &pt_regs) -> u64 {
        regs.r14
    }

    /// rdi, rsi, rdx.
    #[inline(always)]
    pub fn arguments(regs: &pt_regs) -> [*const u64; 3] {
        [&raw const regs.rdi, &raw const regs.rsi, &raw const regs.rdx]
    }

    /// The address of the instruction, and of the stack's top.
    #[inline(always)]
    pub fn place(regs: &pt_regs) -> (u64, u64) {
        (regs.rip, regs.rsp)
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod machine {
    use super::pt_regs;

    /// R0, R1, R2.
    #[inline(always)]
    pub fn go_arguments(regs: &pt_regs) -> (u64, u64, u64) {
        (regs.regs[0], regs.regs[1], regs.regs[2])
    }

    /// R3.
    #[inline(always)]
    pub fn go_fourth_argument(regs: &pt_regs) -> u64 {
        regs.regs[3]
    }

    /// R28.
    #[inline(always)]
    pub fn go_g(regs: &pt_regs) -> u64 {
        regs.regs[28]
    }

    /// x0, x1, x2.
    #[inline(always)]
    pub fn arguments(regs: &pt_regs) -> [*const u64; 3] {
        [
            &raw const regs.regs[0],
            &raw const regs.regs[1],
            &raw const regs.regs[2],
        ]
    }

    /// The address of the instruction, and of the stack's top.
    #[inline(always)]
    pub fn place(regs: &pt_regs) -> (u64, u64) {
        (regs.pc, regs.sp)
    }
}

pub use machine::{arguments, go_arguments, go_fourth_argument, go_g, place};

/// The g of the current thread, in a kernel hook: in thread-local storage.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn thread_g(target: &Target) -> Option<u64> {
    // SAFETY: no arguments, always allowed.
    let task = unsafe { bpf_get_current_task() };
    let base: u64 = read::field(task, kernel!(task_fsbase))?;
    read::user(base.wrapping_add(target.go.tls_g as u64))
}

/// The g of the current thread, in a kernel hook: R28 as it was when the thread entered the kernel. The saved registers lie at
/// the top of its kernel stack (Linux, arch/arm64/include/asm/processor.h, task_pt_regs).
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn thread_g(_target: &Target) -> Option<u64> {
    const R28: u32 = 28 * 8;
    // SAFETY: no arguments, always allowed.
    let task = unsafe { bpf_get_current_task() };
    let stack: u64 = read::field(task, kernel!(task_stack))?;
    read::field(stack, kernel!(stack_user_regs) + R28)
}
