//! What the kernel programs know of one observed process.

use crate::{go, histogram::BLOCKS, hits::Plane, layout, loss::Loss, shared};

/// All pids are lower (the kernel's PID_MAX_LIMIT on 64 bits).
pub const PID_LIMIT: u32 = 4 * 1024 * 1024;
/// Pids in one word of the `TARGET_INDEX` map: 16 bits each, a [`Target::index`], or 0 for a process that is no target.
pub const PIDS_A_WORD: u32 = 4;

/// The process is Go: `go` is valid.
pub const IS_GO: u32 = 1;
/// The process is tokio: `tokio_*` are valid.
pub const IS_TOKIO: u32 = 2;
/// The probes of plane 2 are all attached, and count. Without it they only count their hits.
pub const PROBES_OPEN: u32 = 4;
/// The kernel's hooks on sockets (plane 1a) count. Without it they only count their calls.
pub const SOCKETS_OPEN: u32 = 8;
/// The same of those on its scheduler and on system calls (plane 1b).
pub const THREADS_OPEN: u32 = 16;
/// The probe of plane 2s is attached, and counts. Without it it only counts its hits.
pub const SAMPLE_OPEN: u32 = 32;
/// A window is open that is not always open: requests that end now are counted apart too.
pub const INSIDE: u32 = 64;
/// tokio: polls end where they return.
pub const POLLS_RETURN: u32 = 128;

/// One more than there can be targets at once: [`Target::index`] is below it, and not 0.
pub const TARGET_LIMIT: u32 = 1024;

/// Blocks of histograms that one target may have, a quarter of all: one target cannot take them all.
pub const BLOCK_QUOTA: u64 = BLOCKS as u64 / 4;
/// Peers that one target may have in the `PEERS` map, which has four times the capacity.
pub const PEER_QUOTA: u64 = 1024;

/// tokio's workers of a target that have an id of their own, by tid: rows, and columns. The runtime may move its workers to new threads
/// for ever (tokio, runtime/scheduler/multi_thread/worker.rs, block_in_place), and each would need a new histogram.
pub const WORKER_ROWS: usize = 2;
pub const WORKERS: usize = 32;
/// The id under which all others are counted, which is not a tid.
pub const WORKER_OTHER: u32 = 0;

/// The row and column of a thread in [`Usage::workers`]. Threads with consecutive tids have different ones.
#[inline(always)]
pub const fn worker(tid: u32) -> (usize, usize) {
    let tid = tid as usize;
    (tid / WORKERS % WORKER_ROWS, tid % WORKERS)
}

/// Maps of things in progress that all targets share.
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

    /// How many entries the map can hold, or how many places a [`crate::table`] has.
    #[inline(always)]
    pub const fn capacity(self) -> u32 {
        match self {
            Self::Goroutines | Self::TokioWoken | Self::Sockets | Self::Syscalls => 64 * 1024,
            Self::Threads => 32 * 1024,
            Self::TokioThreads | Self::Connecting => 16 * 1024,
        }
    }

    /// How many of them one target may have: the rest is left to the others. Three quarters of a hash map, and half of a table's places, where
    /// others would not find one at the end.
    #[inline(always)]
    pub const fn quota(self) -> i64 {
        match self {
            Self::Connecting | Self::Syscalls => self.capacity() as i64 / 4 * 3,
            _ => self.capacity() as i64 / 2,
        }
    }

    /// Index of a target's number of entries in the `HELD` map.
    #[inline(always)]
    pub const fn held(self, index: u32) -> u32 {
        index * Self::COUNT as u32 + self as u32
    }

    /// The name under which entries over the quota are exported.
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

    /// The loss as which an entry that could not be added is counted.
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
    /// How often an entry of a target was not added to a shared map because of [`SharedMap::quota`].
    pub struct Refused {
        /// By [`SharedMap`].
        pub times: [u64; SharedMap::COUNT],
    }

    /// What a target uses of the maps that grow until it ends.
    pub struct Usage {
        /// Blocks of histograms.
        pub blocks: u64,
        pub peers: u64,
        /// Values that were not counted because of [`BLOCK_QUOTA`].
        pub refused_values: u64,
        /// Values that were counted under "other" because of [`PEER_QUOTA`], or because half of the quota of blocks was used.
        pub refused_peers: u64,
        /// Tids of tokio's workers with an id of their own, by [`worker`]: the first thread with this row and column; 0 before.
        pub workers: [[u32; WORKERS]; WORKER_ROWS],
    }

    /// One observed process, found by its pid.
    pub struct Target {
        /// Unique while the agent runs, never reused: map keys have it, so that a reused pid is not mistaken for the old process.
        pub id: u32,
        /// [`IS_GO`], [`IS_TOKIO`], [`PROBES_OPEN`], [`SOCKETS_OPEN`], [`THREADS_OPEN`], [`SAMPLE_OPEN`], [`INSIDE`].
        pub flags: u32,
        /// Index in `TARGETS` and in maps of its counts; reused when the target is gone.
        pub index: u32,
        /// In the agent's pid namespace, which is the host's.
        pub pid: u32,
        /// Limit of [`Cutoff::used`](crate::hits::Cutoff), by [`Plane`]: a hit over it ends the window.
        pub allowance: [u64; Plane::COUNT],
        /// CLOCK_MONOTONIC, ns: since when the hooks on sockets count. A connect or request that began before was not seen completely.
        pub sockets_since: u64,
        /// Since when the hooks on the kernel's scheduler count. They may be left out, refused, or attached later. 0 when they do not
        /// count: then nothing is known about off-CPU time.
        pub run_queue_since: u64,
        /// Since when the probes count: waits, polls. From here on a second cache line.
        pub probes_since: u64,
        /// Since when the hooks on system calls count.
        pub threads_since: u64,
        /// A goroutine's time from runnable to running at or over this becomes an event, ns.
        pub slow_wait: u64,
        /// Bits by runtime.waitReason: a wait of that length with such a reason becomes an event too. The other reasons are idle ones.
        pub reported_reasons: u64,
        /// A task's poll at or over this becomes an event, ns.
        pub slow_poll: u64,
        /// A connect or request at or over this becomes an event, ns.
        pub slow_request: u64,
        /// tokio: byte offset in the task header of its vtable pointer.
        pub tokio_vtable: u32,
        /// tokio: byte offset in the vtable of the word `id_offset`.
        pub tokio_id_offset: u32,
        pub pad_to_line: u64,
        /// Where the Go runtime's data is in this process.
        pub go: go::Layout,
        pub pad_to_end: u64,
    }
}

layout!(Refused: 56, Usage: 288, Target: 6 * 64);

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
