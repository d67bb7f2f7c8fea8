//! A P is handed off: the thread that held it does without, and another takes it (go1.26, runtime/proc.go, handoffp).

/// [`crate::histogram::Series::GoHandoff`] is split by the low half of the address that handoffp returns to: its caller.
/// Where that address is at the probe: so many bytes above the stack pointer (amd64), or in the link register (arm64).
pub const IN_LINK_REGISTER: u32 = u32::MAX - 1;
