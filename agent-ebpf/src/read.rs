//! The only place that reads memory by address: the kernel's structs and the target's own.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user};

/// One offset of this kernel's structs, by its name in [`agent_common::kernel::Layout`].
macro_rules! kernel {
    ($field:ident) => {
        // SAFETY: a static of this object, always valid; volatile because the loader changes it behind the compiler's back.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::KERNEL.$field) }
    };
}
pub(crate) use kernel;

/// Process and thread of the caller: (tgid, tid).
#[inline(always)]
pub fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// A field of a kernel struct whose pointer is an argument of a BTF-typed tracepoint: the verifier knows its type and checks
/// the offset against it, and the load costs no call of a helper.
#[inline(always)]
pub fn argument<T: Copy>(base: u64, offset: u32) -> T {
    // SAFETY: the verifier refuses the program unless a T stands at that offset; a bad address reads as 0.
    unsafe { core::ptr::read_volatile((base + u64::from(offset)) as *const T) }
}

/// A field of a kernel struct; None when the address is bad.
#[inline(always)]
pub fn field<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Where the current process's memory could not be read.
pub struct Unreadable(pub u64);

/// A value in the current process's memory.
#[inline(always)]
pub fn user<T>(address: u64) -> Result<T, Unreadable> {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_user(address as *const T) }.map_err(|_| Unreadable(address))
}
