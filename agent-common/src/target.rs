//! What the kernel programs know of one observed process.

use crate::{go, hits::Plane, layout, shared};

/// No pid is as high (the kernel's PID_MAX_LIMIT on 64 bits).
pub const PID_LIMIT: u32 = 4 * 1024 * 1024;
/// Pids in one word of the `TARGET_INDEX` map: 16 bits each, a [`Target::index`], 0 for what is no target.
pub const PIDS_A_WORD: u32 = 4;

/// The process is Go: `go` is valid.
pub const IS_GO: u32 = 1;
/// The process is tokio: `tokio_*` are valid.
pub const IS_TOKIO: u32 = 2;
/// The probes of plane 2 are all in place, and count. Without it they only say that they were hit.
pub const PROBES_OPEN: u32 = 4;
/// The kernel's hooks (plane 1) count. Without it they only say that they were called.
pub const HOOKS_OPEN: u32 = 8;

/// One more than there can be targets at once: [`Target::index`] is below it, and not 0.
pub const TARGET_LIMIT: u32 = 1024;

shared! {
    /// One observed process, found by its pid.
    pub struct Target {
        /// Unique for the agent's life, never used again: what map keys carry, so a reused pid is not mistaken.
        pub slot: u32,
        /// [`IS_GO`], [`IS_TOKIO`], [`PROBES_OPEN`], [`HOOKS_OPEN`].
        pub flags: u32,
        /// Where it stands in `TARGETS`, and where its hits are counted; used again when the target is gone.
        pub index: u32,
        pub pad: u32,
        /// CLOCK_MONOTONIC, ns: since when the probes count. A stamp from before it belongs to a wait or poll that was not seen
        /// whole.
        pub probes_since: u64,
        /// The same for the hooks: connects, requests, waits for a core.
        pub hooks_since: u64,
        /// Since when those on the kernel's scheduler are among them, which can be left out, refused or late; 0: they are not, and
        /// nothing is known of when threads left their cores.
        pub threads_since: u64,
        /// What [`Cut::used`](crate::hits::Cut) may rise to, by [`Plane`]: what is over it ends the window.
        pub allowance: [u64; Plane::COUNT],
        /// A goroutine's time from runnable to running at or over this becomes an event, ns.
        pub slow_wait: u64,
        /// Bit by runtime.waitReason: a wait for it that long becomes an event too. The others are those of idleness.
        pub told_reasons: u64,
        /// A task's poll at or over this becomes an event, ns.
        pub slow_poll: u64,
        /// A connect or request at or over this becomes an event, ns.
        pub slow_request: u64,
        /// tokio: byte offset in the task header of its vtable pointer.
        pub tokio_vtable: u32,
        /// tokio: byte offset in the vtable of the word `id_offset`.
        pub tokio_id_offset: u32,
        /// Where the Go runtime keeps its facts, biased to this process.
        pub go: go::Layout,
    }
}

layout!(Target: 96 + 232);
