//! Log-linear histograms, kept in blocks of [`BLOCK`] buckets that follow each other: only the blocks that values fell into exist.
//!
//! Buckets: values below [`SUB`] have a bucket each; above, every power of two is cut into [`SUB`] equal parts, so a
//! bucket is at most 1/[`SUB`] of its value wide.
//!
//! Blocks are kept in a [`crate::table`].

use crate::{hits::Plane, layout, shared, table};

/// log2 of the buckets a power of two is cut into.
pub const SUB_BITS: u32 = 5;
/// Buckets a power of two.
pub const SUB: u64 = 1 << SUB_BITS;
/// Largest value kept apart, ns (about 73 minutes); larger ones fall into the last bucket.
pub const MAX_VALUE: u64 = (1 << 42) - 1;
/// The bucket index under which a plain counter is kept.
pub const COUNTER: u16 = u16::MAX;

/// log2 of the buckets of a block.
pub const BLOCK_BITS: u32 = 4;
/// Buckets of a block.
pub const BLOCK: usize = 1 << BLOCK_BITS;
/// Places for blocks.
pub const BLOCKS: u32 = 16 * 1024;

/// Bucket indices from here on hold sums and counts by category, which are in no histogram: [`sum_bucket`].
pub const SUMS: u16 = 0x8000;

/// The bucket index that holds the sum and the count of a category; categories are below 256.
pub const fn sum_bucket(category: u32) -> u16 {
    SUMS | (category & 0xff) as u16
}

/// When a window sees a value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenWhen {
    /// If it lies completely in the window. Counters have no values: it makes no difference.
    Whole,
    /// The same; the value is a time between ready and running.
    Ready,
    /// If its end does: the value's length does not matter.
    AtEnd,
    /// As [`Self::Whole`]; the sums are of time in a state, which passes however much work is done.
    State,
}

/// Declares every [`Series`] with its number, the plane whose windows it is counted in (None for what is counted whenever it happens), and when a
/// window sees a value.
macro_rules! series {
    ($($(#[$meta:meta])* $name:ident = $number:literal, $plane:expr, $seen:ident;)*) => {
        /// What a histogram or counter measures.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Series { $($(#[$meta])* $name = $number,)* }

        impl Series {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// In whose windows it is counted; None: whenever it happens.
            pub const fn plane(self) -> Option<Plane> {
                match self {
                    $(Self::$name => $plane,)*
                }
            }

            /// When a window sees a value of it.
            pub const fn seen_when(self) -> SeenWhen {
                match self {
                    $(Self::$name => SeenWhen::$seen,)*
                }
            }
        }
    };
}

series! {
    /// Goroutine, runnable → running, ns.
    GoRunnable = 1, Some(Plane::Probes), Ready;
    /// Counter: goroutine starts whose runnable moment was not seen.
    GoUnstamped = 2, Some(Plane::Probes), Whole;
    /// Task poll, ns; the series' id is the future's type id.
    TokioPoll = 3, Some(Plane::Probes), Whole;
    /// Task wake → poll, ns.
    TokioWake = 4, Some(Plane::Probes), Ready;
    /// Counter: polls whose end did not match their begin.
    TokioUnmatched = 5, Some(Plane::Probes), Whole;
    /// Worker busy: first poll after a park → next park, ns; the series' id is the tid.
    TokioBusy = 6, Some(Plane::Probes), Whole;
    /// TCP connect, ns; the series' id is the peer's id.
    Connect = 7, Some(Plane::Sockets), Whole;
    /// Server: first byte of the request read → first byte of the answer sent, ns.
    ServerRequest = 8, Some(Plane::Sockets), Whole;
    /// Client: first byte of the request sent → first byte of the answer read, ns.
    ClientRequest = 9, Some(Plane::Sockets), Whole;
    /// Thread, wakeup or preemption → running, ns.
    RunQueue = 10, Some(Plane::Threads), Whole;
    /// Counter: connects that ended without being established.
    ConnectFailed = 11, Some(Plane::Sockets), Whole;
    /// Closure of a blocking-pool task, ns; the series' id is the type id.
    TokioBlocking = 12, Some(Plane::Probes), Whole;
    /// Goroutine, waiting → runnable, ns; the series' id is the wait reason.
    GoWaiting = 13, Some(Plane::Probes), Whole;
    /// Sums and counts of goroutines' time, ns, by [`crate::go::sched::Spent`] or wait reason; the series' id is
    /// [`crate::go::Layout::origin`] of the function they were started with.
    GoTime = 14, Some(Plane::Probes), State;
    /// Stop of the world, from asking to starting it again, ns; the series' id is the runtime.stwReason.
    GoStop = 15, None, Whole;
    /// Sum and count of mark assists, ns, in category 0; the series' id is as [`Self::GoTime`]'s.
    GoAssist = 16, Some(Plane::Probes), AtEnd;
    /// Counter: Ps handed off; the series' id is the caller ([`crate::go::handoff`]).
    GoHandoff = 17, Some(Plane::Probes), Whole;
    /// System calls, ns; the series' id is the call's number.
    Syscall = 18, Some(Plane::Threads), Whole;
    /// Sum and count of system calls that goroutines made, ns, in category 0; the series' id is as of [`Series::GoTime`].
    GoSyscall = 19, Some(Plane::Threads), Whole;
    /// Counter: polls of types whose ends are not all seen; the series' id is the future's type id.
    TokioUnended = 20, Some(Plane::Probes), Whole;
    /// Counter: requests that were read and whose connection ended before any of an answer reached the peer; the series' id is the peer's id.
    ServerUnanswered = 21, Some(Plane::Sockets), Whole;
    /// Counter: requests that were sent and whose connection ended before an answer came; the series' id is the peer's id.
    ClientUnanswered = 22, Some(Plane::Sockets), Whole;
    /// Counts of segments that were sent again, by state of the connection ([`crate::net::retransmit`]); the series' id is the peer's id.
    Retransmit = 23, Some(Plane::Sockets), AtEnd;
    /// Goroutine, runnable → running, ns, as the runtime samples it; the series' id is as of [`Series::GoTime`], or
    /// [`crate::go::latency::OTHERS`].
    GoLatency = 24, Some(Plane::Sample), AtEnd;
    /// Counter: the same sample's goroutines that continued without having been runnable.
    GoResumed = 25, Some(Plane::Sample), Whole;
    /// Those of [`Self::ServerRequest`] that ended while a window was open that is not always open; the series' id is 0.
    RequestInside = 26, Some(Plane::Sockets), Whole;
}

impl Series {
    /// Those that have a value for each start of a goroutine.
    pub const STARTS: [Self; 2] = [Self::GoRunnable, Self::GoUnstamped];
}

shared! {
    /// Key of a block.
    pub struct BlockKey {
        /// The target's id, and above it what the series is split by: future's type id, peer id; 0 when it is not split.
        pub whose: u64,
        /// A [`Series`], and above it the index of its first bucket by [`BLOCK`].
        pub what: u64,
    }

    /// What a bucket holds.
    pub struct Bucket {
        /// Number of values.
        pub count: u64,
        /// Their exact sum, in the series' unit.
        pub sum: u64,
    }

    /// Buckets that follow each other.
    pub struct Block {
        pub buckets: [Bucket; BLOCK],
    }
}

layout!(BlockKey: 16, Bucket: 16, Block: 16 * BLOCK);

impl BlockKey {
    /// The block that has a bucket: one with such an index, [`COUNTER`], or the [`sum_bucket`] of a category.
    #[inline(always)]
    pub const fn new(target_id: u32, series: u16, id: u32, bucket: u16) -> Self {
        Self {
            whose: (id as u64) << 32 | target_id as u64,
            what: ((bucket >> BLOCK_BITS) as u64) << 16 | series as u64,
        }
    }

    pub const fn target_id(&self) -> u32 {
        self.whose as u32
    }

    pub const fn id(&self) -> u32 {
        (self.whose >> 32) as u32
    }

    pub const fn series(&self) -> u16 {
        self.what as u16
    }

    /// The index of its first bucket.
    pub const fn first_bucket(&self) -> u16 {
        ((self.what >> 16) as u16) << BLOCK_BITS
    }
}

impl table::Key for BlockKey {
    #[inline(always)]
    fn hash(self) -> u64 {
        table::mixed(self.whose, self.what)
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self.what == 0
    }
}

/// The bucket that `value` falls into.
#[inline(always)]
pub const fn bucket_of(value: u64) -> u16 {
    let value = if value > MAX_VALUE { MAX_VALUE } else { value };
    if value < SUB {
        return value as u16;
    }
    // floor(log2) by halving: the BPF instruction set has no leading-zero count.
    let mut log = 0u32;
    let mut rest = value;
    if rest >= 1 << 32 {
        rest >>= 32;
        log += 32;
    }
    if rest >= 1 << 16 {
        rest >>= 16;
        log += 16;
    }
    if rest >= 1 << 8 {
        rest >>= 8;
        log += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        log += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        log += 2;
    }
    if rest >= 1 << 1 {
        log += 1;
    }
    let shift = log - SUB_BITS;
    (((shift + 1) as u64 * SUB) + ((value >> shift) - SUB)) as u16
}

/// Smallest value of a bucket, and the smallest value above it.
pub const fn bounds_of(bucket: u16) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < SUB {
        return (bucket, bucket + 1);
    }
    let shift = bucket / SUB - 1;
    let low = (SUB + bucket % SUB) << shift;
    (low, low + (1 << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: u64) {
        let bucket = bucket_of(value);
        let (low, high) = bounds_of(bucket);
        assert!(
            low <= value && value < high,
            "{value} in bucket {bucket} = {low}..{high}"
        );
        assert!(
            high - low <= 1 + value / SUB,
            "bucket of {value} is {} wide",
            high - low
        );
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for power in 0..42 {
            for offset in [0, 1, 2, 3, 5, 31, 32, 33] {
                check(((1u64 << power) + offset).min(MAX_VALUE));
                check((1u64 << power).saturating_sub(offset));
            }
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..bucket_of(MAX_VALUE) {
            assert_eq!(bounds_of(bucket).1, bounds_of(bucket + 1).0, "after bucket {bucket}");
        }
    }

    #[test]
    fn a_value_too_large_is_in_the_last_bucket() {
        assert_eq!(bucket_of(u64::MAX), bucket_of(MAX_VALUE));
        assert!(bucket_of(MAX_VALUE) < SUMS && sum_bucket(u32::MAX) < COUNTER);
    }

    #[test]
    fn a_key_says_what_it_is_made_of() {
        for bucket in [0, 15, 16, 1215, sum_bucket(0), sum_bucket(82), COUNTER] {
            let key = BlockKey::new(7, Series::GoTime as u16, u32::MAX, bucket);
            assert_eq!((key.target_id(), key.series(), key.id()), (7, 14, u32::MAX));
            assert!(bucket - key.first_bucket() < BLOCK as u16, "{bucket}");
        }
    }
}
