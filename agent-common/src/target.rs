//! What the kernel programs know of one observed process.

use crate::{go, hits::Plane, layout, loss::Loss, shared};

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

/// Buckets that one target may have of the `HISTOGRAMS` map, which holds four times as many: what one fills is not missing to all.
pub const BUCKET_QUOTA: u64 = 16 * 1024;
/// Peers that one target may have kept apart, of four times as many.
pub const PEER_QUOTA: u64 = 1024;

/// tokio's workers of a target that are told apart, by their tids: rows, and places in each. The runtime may move its workers to new threads for
/// ever (tokio, runtime/scheduler/multi_thread/worker.rs, block_in_place), and each takes room for good.
pub const WORKER_ROWS: usize = 2;
pub const WORKERS: usize = 32;
/// What the other ones are counted under, which is no thread's id.
pub const WORKER_OTHER: u32 = 0;

/// The place of a thread in [`Usage::workers`]. Threads that are begun one after the other have places of their own.
#[inline(always)]
pub const fn worker(tid: u32) -> (usize, usize) {
    let tid = tid as usize;
    (tid / WORKERS % WORKER_ROWS, tid % WORKERS)
}

/// Maps of what is under way that all targets share.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMap {
    Goroutines = 0,
    TokioWoken = 1,
    TokioThreads = 2,
    Connecting = 3,
    Sockets = 4,
    Threads = 5,
    Syscalls = 6,
}

impl SharedMap {
    pub const COUNT: usize = 7;

    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Goroutines,
        Self::TokioWoken,
        Self::TokioThreads,
        Self::Connecting,
        Self::Sockets,
        Self::Threads,
        Self::Syscalls,
    ];

    /// How many entries the map has room for.
    #[inline(always)]
    pub const fn capacity(self) -> u32 {
        match self {
            Self::Goroutines | Self::TokioWoken | Self::Sockets | Self::Threads | Self::Syscalls => 64 * 1024,
            Self::TokioThreads | Self::Connecting => 16 * 1024,
        }
    }

    /// How many of them one target may have, three quarters: what it leaves is for all others.
    #[inline(always)]
    pub const fn quota(self) -> i64 {
        self.capacity() as i64 / 4 * 3
    }

    /// Where the number of a target's entries stands in the `HELD` map.
    #[inline(always)]
    pub const fn held(self, index: u32) -> u32 {
        index * Self::COUNT as u32 + self as u32
    }

    /// What entries over the quota are exported under.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Goroutines => "goroutine_quota",
            Self::TokioWoken => "tokio_woken_quota",
            Self::TokioThreads => "tokio_thread_quota",
            Self::Connecting => "connect_quota",
            Self::Sockets => "socket_quota",
            Self::Threads => "thread_quota",
            Self::Syscalls => "syscall_quota",
        }
    }

    /// What an entry that could not be made is counted as.
    #[inline(always)]
    pub const fn loss(self) -> Loss {
        match self {
            Self::Goroutines => Loss::GoroutineFull,
            Self::TokioWoken => Loss::TokioWokenFull,
            Self::TokioThreads => Loss::TokioThreadsFull,
            Self::Connecting | Self::Sockets => Loss::SocketFull,
            Self::Threads | Self::Syscalls => Loss::ThreadFull,
        }
    }
}

shared! {
    /// What a target could not have of the maps that all share and that are cleared: times that an entry was not made for
    /// [`SharedMap::quota`].
    pub struct Refused {
        /// By [`SharedMap`].
        pub times: [u64; SharedMap::COUNT],
    }

    /// What a target has made of the maps that all share.
    pub struct Usage {
        pub buckets: u64,
        pub peers: u64,
        /// Values that were not counted for [`BUCKET_QUOTA`].
        pub refused_buckets: u64,
        /// Values that were counted under "other" for [`PEER_QUOTA`], or as half of the buckets were made.
        pub refused_peers: u64,
        /// tokio's workers that are told apart, by [`worker`]: each the first thread of those that have its place; 0 before.
        pub workers: [[u32; WORKERS]; WORKER_ROWS],
    }

    /// One observed process, found by its pid.
    pub struct Target {
        /// Unique for the agent's life, never used again: what map keys carry, so a reused pid is not mistaken.
        pub id: u32,
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
        /// What [`Cutoff::used`](crate::hits::Cutoff) may rise to, by [`Plane`]: what is over it ends the window.
        pub allowance: [u64; Plane::COUNT],
        /// A goroutine's time from runnable to running at or over this becomes an event, ns.
        pub slow_wait: u64,
        /// Bit by runtime.waitReason: a wait for it that long becomes an event too. The others are those of idleness.
        pub reported_reasons: u64,
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

layout!(Refused: 56, Usage: 288, Target: 96 + 240);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_in_index_order_and_leave_capacity_to_others() {
        for (index, of) in SharedMap::ALL.into_iter().enumerate() {
            assert_eq!(of as usize, index, "{}", of.name());
            assert!(of.quota() > 0 && of.quota() < i64::from(of.capacity()), "{}", of.name());
            assert_eq!(of.held(3), 3 * SharedMap::COUNT as u32 + index as u32, "{}", of.name());
        }
    }

    #[test]
    fn threads_that_were_begun_one_after_the_other_are_told_apart() {
        for first in [1, 31, 63, 4_194_240] {
            let mut seen = [[0; WORKERS]; WORKER_ROWS];
            for tid in first..first + (WORKERS * WORKER_ROWS) as u32 {
                let (row, at) = worker(tid);
                seen[row][at] += 1;
            }
            assert_eq!(seen, [[1; WORKERS]; WORKER_ROWS], "{first}");
        }
    }
}
