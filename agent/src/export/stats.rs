//! What became of everything handed to export: produced = sent + dropped + waiting, item for item (spans and points).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::model::Batch;

/// Why something was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    QueueFull,
    /// The endpoint could not be reached for too long.
    Unreachable,
    /// The endpoint refused it, wholly or in part.
    Refused,
    WriteError,
    /// The agent ended first.
    Closed,
}

impl Cause {
    /// All causes with the name they are exported under.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::QueueFull, "queue_full"),
        (Self::Unreachable, "unreachable"),
        (Self::Refused, "refused"),
        (Self::WriteError, "write_error"),
        (Self::Closed, "closed"),
    ];
}

/// Counters, shared by sinks and summary.
#[derive(Debug, Default)]
pub struct ExportStats {
    produced: AtomicU64,
    sent: AtomicU64,
    dropped: [AtomicU64; Cause::ALL.len()],
    retries: AtomicU64,
    down: AtomicBool,
    closing: AtomicBool,
}

impl ExportStats {
    pub(super) fn produced(&self, batch: &Batch) {
        self.produced.fetch_add(items(batch), Relaxed);
    }

    pub(super) fn sent(&self, items: u64) {
        self.sent.fetch_add(items, Relaxed);
    }

    pub(super) fn dropped(&self, items: u64, cause: Cause) {
        self.dropped[cause as usize].fetch_add(items, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Notes whether the endpoint answers; true when that changed.
    pub(super) fn set_down(&self, down: bool) -> bool {
        self.down.swap(down, Relaxed) != down
    }

    pub(super) fn begin_shutdown(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// What no sink ever finished is lost now.
    pub(super) fn close(&self) {
        let rest = self.waiting();
        self.dropped(rest, Cause::Closed);
    }

    /// Spans and points that sinks still hold.
    pub fn waiting(&self) -> u64 {
        self.total_produced()
            .saturating_sub(self.total_sent() + self.total_dropped())
    }

    pub fn total_produced(&self) -> u64 {
        self.produced.load(Relaxed)
    }

    pub fn total_sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub fn total_dropped(&self) -> u64 {
        self.dropped.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn dropped_by(&self, cause: Cause) -> u64 {
        self.dropped[cause as usize].load(Relaxed)
    }

    pub fn total_retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Whether the endpoint did not answer the last time.
    pub fn is_down(&self) -> bool {
        self.down.load(Relaxed)
    }
}

/// Spans and points of a batch.
pub(super) fn items(batch: &Batch) -> u64 {
    (batch.spans.len() + batch.metrics.iter().map(|metric| metric.points.len()).sum::<usize>()) as u64
}
