//! What depends on the architecture: the argument registers of each calling convention, and where a thread's g is.
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

    /// System calls that wait for events: their length is idle time, not delay (Linux,
    /// arch/x86/entry/syscalls/syscall_64.tbl): poll, select, pselect6, ppoll, epoll_wait, epoll_pwait, epoll_pwait2, futex,
    /// nanosleep, clock_nanosleep, pause, accept, accept4, wait4, waitid, rt_sigtimedwait, rt_sigsuspend, io_getevents,
    /// io_uring_enter, restart_syscall, futex_waitv.
    #[inline(always)]
    pub fn is_idle(number: u32) -> bool {
        matches!(
            number,
            7 | 23
                | 270
                | 271
                | 232
                | 281
                | 441
                | 202
                | 35
                | 230
                | 34
                | 43
                | 288
                | 61
                | 247
                | 128
                | 130
                | 208
                | 426
                | 219
                | 449
        )
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

    /// Instruction pointer and stack pointer.
    #[inline(always)]
    pub fn ip_and_sp(regs: &pt_regs) -> (u64, u64) {
        (regs.rip, regs.rsp)
    }

    /// amd64 has no link register: return addresses are on the stack.
    #[inline(always)]
    pub fn link(_regs: &pt_regs) -> u64 {
        0
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

    /// As on amd64, where it has them (Linux, include/uapi/asm-generic/unistd.h).
    #[inline(always)]
    pub fn is_idle(number: u32) -> bool {
        matches!(
            number,
            72 | 73 | 22 | 441 | 98 | 101 | 115 | 202 | 242 | 260 | 95 | 137 | 133 | 4 | 426 | 128 | 449
        )
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

    /// Instruction pointer and stack pointer.
    #[inline(always)]
    pub fn ip_and_sp(regs: &pt_regs) -> (u64, u64) {
        (regs.pc, regs.sp)
    }

    /// R30, until the function calls another.
    #[inline(always)]
    pub fn link(regs: &pt_regs) -> u64 {
        regs.regs[30]
    }
}

pub use machine::{arguments, go_arguments, go_fourth_argument, go_g, ip_and_sp, is_idle, link};

/// The g of the current thread, in a kernel hook: in thread-local storage.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn thread_g(target: &Target) -> Option<u64> {
    // SAFETY: no arguments, always allowed.
    let task = unsafe { bpf_get_current_task() };
    let base: u64 = read::field(task, kernel!(task_fsbase))?;
    read::user(base.wrapping_add(target.go.tls_g as u64)).ok()
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
