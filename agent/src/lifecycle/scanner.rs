//! Scans of all processes: exec events do not show processes that were there before, forks without exec, and what a lost event was about.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use tokio::sync::mpsc;

use crate::discover::{Census, Process};

/// A scan that has finished: the processes that are new since the last one.
pub struct Scan {
    census: Census,
    found: io::Result<Vec<Process>>,
}

/// Scans /proc in a thread of its own, one scan at a time.
pub struct Scanner {
    /// What is known from the last scan; None while a scan runs.
    census: Option<Census>,
    /// Processes that the next scan shows again.
    retry: Vec<u32>,
    scanner_to_pipeline: mpsc::Sender<Scan>,
    pub finished: mpsc::Receiver<Scan>,
}

impl Scanner {
    /// Nothing is scanned yet.
    pub(super) fn new(root: Arc<Path>) -> Self {
        let (scanner_to_pipeline, finished) = mpsc::channel(1);
        Self {
            census: Some(Census::new(root)),
            retry: Vec::new(),
            scanner_to_pipeline,
            finished,
        }
    }

    /// Scans at once and waits for it. Nothing is found while another scan runs.
    pub(super) fn scan_now(&mut self) -> io::Result<Vec<Process>> {
        self.census.as_mut().map_or(Ok(Vec::new()), Census::look)
    }

    /// Starts a scan, unless one runs. [`Self::finished`] gets the result.
    pub fn start(&mut self) {
        let Some(mut census) = self.census.take() else { return };
        self.retry.drain(..).for_each(|pid| census.forget(pid));
        let scanner_to_pipeline = self.scanner_to_pipeline.clone();
        tokio::task::spawn_blocking(move || {
            // After a panic there would be no further scan.
            let found = catch_unwind(AssertUnwindSafe(|| census.look()));
            let found = found.unwrap_or_else(|_| Err(io::Error::other("the scan panicked")));
            // The pipeline is gone only when the agent ends.
            let _ = scanner_to_pipeline.blocking_send(Scan { census, found });
        });
    }

    /// Takes over a finished scan. Returns what it found.
    pub(super) fn finish(&mut self, scan: Scan) -> io::Result<Vec<Process>> {
        self.census = Some(scan.census);
        scan.found
    }

    /// Makes the next scan show these processes again.
    pub(super) fn retry(&mut self, pids: impl IntoIterator<Item = u32>) {
        self.retry.extend(pids);
    }
}
