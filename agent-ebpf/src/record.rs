//! Counts values, writes events, and counts what is lost.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use agent_common::{
    event::{Header, Kind},
    histogram::{Bucket, COUNTER, Key, Series, bucket_of, sum_bucket},
    loss::Loss,
    target::{BUCKET_QUOTA, Target},
};
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE};

use crate::{
    maps::{EVENTS, HISTOGRAMS, LOSS, USAGE},
    read,
};

/// Counts one value of a histogram; `id` is what the series is split by.
#[inline(always)]
pub fn value(target: &Target, series: Series, id: u32, value: u64) {
    count_in(
        target,
        Key {
            target_id: target.id,
            series: series as u16,
            bucket: bucket_of(value),
            id,
        },
        value,
    );
}

/// Counts one occurrence.
#[inline(always)]
pub fn count(target: &Target, series: Series, id: u32) {
    count_in(
        target,
        Key {
            target_id: target.id,
            series: series as u16,
            bucket: COUNTER,
            id,
        },
        1,
    );
}

/// Adds to the sum of a category.
#[inline(always)]
pub fn sum(target: &Target, series: Series, id: u32, category: u32, value: u64) {
    count_in(
        target,
        Key {
            target_id: target.id,
            series: series as u16,
            bucket: sum_bucket(category),
            id,
        },
        value,
    );
}

#[inline(always)]
fn count_in(target: &Target, key: Key, value: u64) {
    if let Some(bucket) = HISTOGRAMS.get_ptr_mut(key) {
        return bump(bucket, value);
    }
    make(&key, value, target.index);
}

/// Adds a bucket. Rare, so not inlined.
#[inline(never)]
fn make(key: &Key, value: u64, index: u32) {
    let Some(usage) = USAGE.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: an element of an array that lives as long as this object; two CPUs at once may make one bucket too many.
    if unsafe { (*usage).buckets } >= BUCKET_QUOTA {
        // SAFETY: as above.
        unsafe { add(&raw mut (*usage).refused_buckets, 1) };
        return lost(Loss::HistogramQuota);
    }
    if HISTOGRAMS
        .insert(*key, Bucket { count: 1, sum: value }, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        // SAFETY: as above.
        unsafe { add(&raw mut (*usage).buckets, 1) };
        return;
    }
    // Another CPU added the bucket meanwhile, or the map is full.
    match HISTOGRAMS.get_ptr_mut(*key) {
        Some(bucket) => bump(bucket, value),
        None => lost(Loss::HistogramFull),
    }
}

#[inline(always)]
fn bump(bucket: *mut Bucket, value: u64) {
    // SAFETY: a bucket is removed only after its target was detached.
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

/// Writes an event, or counts it as lost. The agent polls the ring many times a second: a wakeup for each event would cost the target an
/// interrupt, some 10 µs, possibly while its world is stopped. The agent is woken only when the ring fills.
#[inline(always)]
pub fn event<T: 'static>(event: T) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            entry.write(event);
            let (filled, size) = (
                EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)),
                EVENTS.query(u64::from(BPF_RB_RING_SIZE)),
            );
            let wakeup = if filled > size / 4 {
                BPF_RB_FORCE_WAKEUP
            } else {
                BPF_RB_NO_WAKEUP
            };
            entry.submit(u64::from(wakeup));
        }
        None => lost(Loss::RingFull),
    }
}
