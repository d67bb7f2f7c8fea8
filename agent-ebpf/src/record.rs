//! Counts values, writes events, and counts what is lost.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use agent_common::{
    event::{Header, Kind},
    histogram::{BLOCK, Block, BlockKey, Bucket, COUNTER, Series, bucket_of, sum_bucket},
    loss::Loss,
    target::{BLOCK_QUOTA, Target},
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    maps::{RingBuf, ring_buf::RingBufEntry},
};

use crate::{
    log,
    maps::{EVENTS, LOSS, USAGE},
    read::{self, Unreadable},
    table::{self, Added, Blocks, Table as _},
};

/// Counts one value of a histogram; `id` is what the series is split by.
#[inline(always)]
pub fn value(target: &Target, series: Series, id: u32, value: u64) {
    in_histogram(target, series as u16, id, value);
}

/// Counts one occurrence.
#[inline(always)]
pub fn count(target: &Target, series: Series, id: u32) {
    in_bucket(target, u32::from(COUNTER) << 16 | series as u32, id, 1);
}

/// Adds to the sum of a category.
#[inline(always)]
pub fn sum(target: &Target, series: Series, id: u32, category: u32, value: u64) {
    in_bucket(target, u32::from(sum_bucket(category)) << 16 | series as u32, id, value);
}

/// Not in line: most programs count in several places, and code that another place has run is in the caches.
#[inline(never)]
fn in_histogram(target: &Target, series: u16, id: u32, value: u64) {
    count_in(target, series, id, bucket_of(value), value);
}

/// As above. `what` is the series, and above it the index of the bucket.
#[inline(never)]
fn in_bucket(target: &Target, what: u32, id: u32, value: u64) {
    count_in(target, what as u16, id, (what >> 16) as u16, value);
}

#[inline(always)]
fn count_in(target: &Target, series: u16, id: u32, bucket: u16, value: u64) {
    let key = BlockKey::new(target.id, series, id, bucket);
    if let Some(block) = table::get::<Blocks>(key).or_else(|| table::at::<Blocks>(make(target, key))) {
        // SAFETY: an element of an array, which is another's only when the target is gone.
        unsafe { bump(&raw mut (*block).buckets[bucket as usize % BLOCK], value) };
    }
}

/// Adds a block, and returns its place. Rare, so not inlined.
#[inline(never)]
fn make(target: &Target, key: BlockKey) -> u32 {
    let Some(usage) = USAGE.get_ptr_mut(target.index) else {
        return Blocks::SIZE;
    };
    // SAFETY: an element of an array that lives as long as this object; two CPUs at once may make one block too many.
    if unsafe { (*usage).blocks } >= BLOCK_QUOTA {
        // SAFETY: as above.
        unsafe { add(&raw mut (*usage).refused_values, 1) };
        full(Loss::HistogramQuota, target);
        return Blocks::SIZE;
    }
    // User space has set it to 0 when its last target was gone. Where there are two blocks of one key, user space adds them up.
    let clear = |block: *mut Block| {
        for at in 0..BLOCK {
            // SAFETY: an element of an array, which only this program has now; volatile, since a call of memset would take stack.
            unsafe { core::ptr::write_volatile(&raw mut (*block).buckets[at], Bucket { count: 0, sum: 0 }) };
        }
    };
    match table::add::<Blocks>(key, clear) {
        Added::New(place) => {
            // SAFETY: as above.
            unsafe { add(&raw mut (*usage).blocks, 1) };
            place
        }
        Added::There(place) => place,
        Added::Full => {
            full(Loss::HistogramFull, target);
            Blocks::SIZE
        }
    }
}

/// # Safety
/// `bucket` is one of a map's value.
#[inline(always)]
unsafe fn bump(bucket: *mut Bucket, value: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        add(&raw mut (*bucket).count, 1);
        add(&raw mut (*bucket).sum, value);
    }
}

/// Adds to a word that others add to as well: on other CPUs, or on this one, where a program may interrupt another (a tracepoint
/// in a softirq), or preempt it (uprobes since Linux 6.0).
///
/// # Safety
/// `word` is an aligned u64 of a map's value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: as the caller promises; the verifier checks it again.
    let _ = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, value) };
}

/// Counts a loss.
#[inline(always)]
pub fn lost(cause: Loss) {
    if let Some(count) = LOSS.get_ptr_mut(cause as u32) {
        // SAFETY: an element of an array that lives as long as this object.
        unsafe { add(count, 1) };
    }
}

/// Counts memory of the current process that could not be read.
#[inline(never)]
pub fn unread(Unreadable(address): Unreadable) {
    lost(Loss::ReadFault);
    log::unreadable(address);
}

/// Counts a loss for want of space.
#[inline(always)]
pub fn full(cause: Loss, target: &Target) {
    lost(cause);
    log::full(cause, target);
}

/// A header for an event of the current thread.
#[inline(always)]
pub fn header(kind: Kind, target_id: u32, time: u64) -> Header {
    let (tgid, tid) = read::current();
    Header {
        time,
        kind: kind as u32,
        target_id,
        tgid,
        tid,
    }
}

/// Writes an event, or counts it as lost.
#[inline(always)]
pub fn event<T: 'static>(event: T) {
    if let Some(mut entry) = reserve() {
        entry.write(event);
        submit(entry);
    }
}

/// Space for an event, or it is counted as lost. The entry must be submitted or discarded.
#[inline(always)]
pub fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lost(Loss::RingFull);
    }
    entry
}

/// Submits an event that was written. The agent polls the ring many times a second: a wakeup for each event would cost the target an interrupt, some
/// 10 µs, possibly while its world is stopped. The agent is woken only when the ring fills.
#[inline(always)]
pub fn submit<T>(entry: RingBufEntry<T>) {
    let (filled, size) = filled(&EVENTS);
    let wakeup = if filled > size / 4 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(wakeup));
}

/// How many bytes of a ring buffer are not read yet, and how many it has.
#[inline(always)]
pub fn filled(ring: &RingBuf) -> (u64, u64) {
    (
        ring.query(u64::from(BPF_RB_AVAIL_DATA)),
        ring.query(u64::from(BPF_RB_RING_SIZE)),
    )
}
