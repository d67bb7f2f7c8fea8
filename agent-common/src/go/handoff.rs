//! A P is handed off from one thread to another (go1.26, runtime/proc.go, handoffp).

/// [`crate::histogram::Series::GoHandoff`] is split by the low half of the address that handoffp returns to: its caller.
/// Where that address is at the probe: an offset from the stack pointer (amd64), or the link register (arm64).
pub const IN_LINK_REGISTER: u32 = u32::MAX - 1;
