//! The only place that reads memory by address: the kernel's structs and the target's own.

use agent_common::{
    event::{ACTOR_GOROUTINE, ACTOR_NONE, ACTOR_TASK, Actor},
    target::{IS_GO, IS_TOKIO, PROBES_OPEN, Target},
    tokio::poll::UNENDED,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user, generated};

use crate::{arch, maps::TOKIO_THREADS};

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

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, always allowed.
    unsafe { generated::bpf_ktime_get_ns() }
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

/// A value in the current process's memory; None when it is not there.
#[inline(always)]
pub fn user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// Who runs on the current thread of `target`.
#[inline(always)]
pub fn actor(target: &Target, tid: u32) -> Actor {
    if target.flags & IS_GO != 0
        && let Some(id) = goroutine(target)
    {
        return Actor {
            id,
            kind: ACTOR_GOROUTINE,
            future: 0,
        };
    }
    // Outside a window nobody says which task a thread polls.
    if target.flags & (IS_TOKIO | PROBES_OPEN) == IS_TOKIO | PROBES_OPEN
        // SAFETY: an entry of this thread's own, written by this thread only.
        && let Some(thread) = unsafe { TOKIO_THREADS.get(tid) }
        && thread.slot == target.slot
        && thread.task != 0
        // One that is not seen to end cannot be said to be under way.
        && thread.future & UNENDED == 0
        && thread.since >= target.probes_since
    {
        return Actor {
            id: task_id(target, thread.task).unwrap_or(0),
            kind: ACTOR_TASK,
            future: thread.future,
        };
    }
    Actor {
        id: 0,
        kind: ACTOR_NONE,
        future: 0,
    }
}

/// goid of the goroutine on the current thread: g as the thread has it; on g0, the goroutine that m runs.
#[inline(always)]
fn goroutine(target: &Target) -> Option<u64> {
    if target.go.tls_g == 0 {
        return None;
    }
    let g = arch::thread_g(target)?;
    let goid: u64 = user(g + u64::from(target.go.g_goid))?;
    if goid != 0 {
        return Some(goid);
    }
    let m: u64 = user(g + u64::from(target.go.g_m))?;
    let current: u64 = user(m + u64::from(target.go.m_curg))?;
    user(current + u64::from(target.go.g_goid))
}

/// tokio's task id: the header's vtable says how far behind the header it stands (tokio, runtime/task/core.rs, Header::get_id).
#[inline(always)]
pub fn task_id(target: &Target, task: u64) -> Option<u64> {
    let vtable: u64 = user(task + u64::from(target.tokio_vtable))?;
    let offset: u64 = user(vtable + u64::from(target.tokio_id_offset))?;
    user(task.wrapping_add(offset))
}
