//! The clock of all events and times.

use aya_ebpf::helpers::generated;

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, always allowed.
    unsafe { generated::bpf_ktime_get_ns() }
}
