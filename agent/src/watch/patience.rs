//! Work about a process that may take longer than others are to wait for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use log::warn;
use tokio::{sync::Semaphore, time::timeout};

use crate::{deadline, discover::Process};

/// What is asked about a process; dropped when it was answered.
pub(super) struct Waiting {
    /// The process, for people.
    who: String,
    unanswered: Arc<AtomicUsize>,
    is_late: bool,
}

impl Waiting {
    pub(super) fn new(process: &Process, unanswered: Arc<AtomicUsize>) -> Self {
        Self {
            who: format!("process {} ({})", process.pid, process.exe.display()),
            unanswered,
            is_late: false,
        }
    }

    /// It was not answered in time.
    fn late(&mut self) {
        self.is_late = true;
        self.unanswered.fetch_add(1, Relaxed);
        deadline::note_late();
        warn!(
            "{}: its file system does not respond: it is watched when it does",
            self.who
        );
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.unanswered.fetch_sub(usize::from(self.is_late), Relaxed);
    }
}

/// Does `work` beside the loop with a permit; none when it panics. Where it takes longer than `patience` others have the permit, and it is
/// waited for on.
pub(super) async fn with_patience<T: Send + 'static>(
    permits: Arc<Semaphore>,
    patience: Duration,
    mut waiting: Waiting,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let permit = permits.acquire_owned().await;
    let mut task = tokio::task::spawn_blocking(work);
    match timeout(patience, &mut task).await {
        Ok(outcome) => outcome.ok(),
        Err(_) => {
            waiting.late();
            drop(permit);
            task.await.ok()
        }
    }
}
