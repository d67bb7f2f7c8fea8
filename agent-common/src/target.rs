//! What the kernel programs know of one observed process.

use crate::{go, layout, shared};

/// Pids up to this bound have a bit in the `TARGET_BITS` map (the kernel's PID_MAX_LIMIT on 64 bits).
pub const PID_LIMIT: u32 = 4 * 1024 * 1024;

/// The process is Go: `go` is valid.
pub const IS_GO: u32 = 1;
/// The process is tokio: `tokio_*` are valid.
pub const IS_TOKIO: u32 = 2;

shared! {
    /// One observed process, found by its pid.
    pub struct Target {
        /// Unique for the agent's life, never used again: what map keys carry, so a reused pid is not mistaken.
        pub slot: u32,
        /// [`IS_GO`], [`IS_TOKIO`].
        pub flags: u32,
        /// A goroutine's wait from runnable to running at or over this becomes an event, ns.
        pub slow_wait: u64,
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

layout!(Target: 40 + 152);
