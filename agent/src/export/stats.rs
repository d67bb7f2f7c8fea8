//! What became of everything handed to export: produced = sent + dropped + waiting, item for item (spans, points and events).

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::model::Batch;

/// What is exported, each its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// What it consists of.
    pub(super) fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "points",
            Self::Logs => "events",
        }
    }

    /// How many of a batch.
    pub(super) fn count(self, batch: &Batch) -> u64 {
        let count = match self {
            Self::Traces => batch.spans.len(),
            Self::Metrics => batch.metrics.iter().map(|metric| metric.points.len()).sum(),
            Self::Logs => batch.events.len(),
        };
        count as u64
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        })
    }
}

/// Why something was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    QueueFull,
    /// The endpoint could not be reached for too long.
    Unreachable,
    /// The endpoint refused it, wholly or in part.
    Refused,
    /// The endpoint has no service for metrics, or none for logs: Jaeger takes spans alone.
    NoService,
    WriteError,
    /// The agent ended first.
    Closed,
}

impl Cause {
    /// All causes with the name they are exported under.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::QueueFull, "queue_full"),
        (Self::Unreachable, "unreachable"),
        (Self::Refused, "refused"),
        (Self::NoService, "no_service"),
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
    /// By signal.
    down: [AtomicBool; Signal::ALL.len()],
    closing: AtomicBool,
}

impl ExportStats {
    pub(super) fn produced(&self, items: u64) {
        self.produced.fetch_add(items, Relaxed);
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

    /// Notes whether the signal's endpoint takes it; true when that changed.
    pub(super) fn set_down(&self, signal: Signal, down: bool) -> bool {
        self.down[signal as usize].swap(down, Relaxed) != down
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

    /// Spans, points and events that sinks still hold.
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

    /// What was given up, for people: the number, and why where there is any.
    pub fn dropped_text(&self) -> String {
        let causes = Cause::ALL.map(|(cause, name)| (name, self.dropped_by(cause)));
        let all: u64 = causes.iter().map(|(_, count)| count).sum();
        let causes = causes.iter().filter(|(_, count)| *count > 0);
        let causes: Vec<String> = causes.map(|(name, count)| format!("{name} {count}")).collect();
        if causes.is_empty() {
            "0".to_owned()
        } else {
            format!("{all} ({})", causes.join(", "))
        }
    }

    pub fn dropped_by(&self, cause: Cause) -> u64 {
        self.dropped[cause as usize].load(Relaxed)
    }

    pub fn total_retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Whether a signal's endpoint did not take it the last time.
    pub fn is_down(&self) -> bool {
        self.down.iter().any(|down| down.load(Relaxed))
    }
}
