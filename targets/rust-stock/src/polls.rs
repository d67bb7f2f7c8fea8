//! A count and a histogram of every single poll, by tokio's task hooks (which need `--cfg tokio_unstable`).
//!
//! The runtime's own poll count and poll-time histogram are no such thing: a task that runs from the LIFO slot
//! right after another is counted and timed as part of that one's poll (tokio 1.54,
//! `scheduler::multi_thread::worker::Context::run_task`). `/stock` has three polls a request and one of them counted.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use serde_json::{Value, json};
use tokio::runtime::Builder;

/// Buckets to a power of two, as a number of bits.
const SUB_BITS: u32 = 3;
const BUCKETS: usize = 64 << SUB_BITS;

// Statics, because the hooks' closures and the handler have nothing else in common.
static COUNTS: [AtomicU64; BUCKETS] = [const { AtomicU64::new(0) }; BUCKETS];
static TOTAL_NS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static BEGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

pub(crate) fn hook_into(builder: &mut Builder) {
    builder.on_before_task_poll(|_| BEGIN.set(Some(Instant::now())));
    builder.on_after_task_poll(|_| {
        if let Some(begin) = BEGIN.take() {
            let ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            COUNTS[bucket(ns)].fetch_add(1, Ordering::Relaxed);
            TOTAL_NS.fetch_add(ns, Ordering::Relaxed);
        }
    });
}

/// Gives count, total time and the buckets that hold something, as `[from_ns, to_ns, count]`.
pub(crate) fn account() -> Value {
    let counts = COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
    let filled: Vec<(usize, u64)> = counts.filter(|(_, count)| *count > 0).collect();
    json!({
        "count": filled.iter().map(|(_, count)| count).sum::<u64>(),
        "total_ns": TOTAL_NS.load(Ordering::Relaxed),
        "histogram": filled
            .iter()
            .map(|(bucket, count)| (lower_bound(*bucket), lower_bound(bucket + 1), *count))
            .collect::<Vec<_>>(),
    })
}

/// Values below two sub-bucket rounds have a bucket each; above, 8 buckets to a power of two.
fn bucket(ns: u64) -> usize {
    let shift = (ns | 1).ilog2().saturating_sub(SUB_BITS);
    ((shift as usize) << SUB_BITS) + (ns >> shift) as usize
}

fn lower_bound(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    ((bucket - (shift << SUB_BITS)) as u64) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_within_its_bucket() {
        for ns in [0, 1, 7, 8, 15, 16, 17, 1000, 25_000_000, 1 << 62, u64::MAX / 2] {
            let bucket = bucket(ns);
            let bounds = lower_bound(bucket)..lower_bound(bucket + 1);
            assert!(bounds.contains(&ns), "{ns} in {bounds:?}");
        }
    }
}
