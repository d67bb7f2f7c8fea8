//! Reads of a process' files that may never return, because its file system does not respond. They run in threads of their own, a few at a
//! time. A read that takes too long gives up its permit, so that it does not delay reads of other processes.

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

/// Short reads that run at the same time, without those that exceeded their time.
const CONCURRENT_READS: usize = 32;
/// Most reads that exceeded their time; with so many no process is read.
const OVERDUE_LIMIT: usize = 256;
/// How long an inspection keeps its permit: longer than the largest executables take.
const INSPECTION_TIME: Duration = Duration::from_secs(5);

/// The permits for such reads.
#[derive(Clone)]
pub(super) struct Blocking {
    reads: Arc<Semaphore>,
    inspections: Arc<Semaphore>,
    /// How many exceeded their time and have not returned.
    overdue: Arc<AtomicUsize>,
}

impl Blocking {
    pub(super) fn new() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
            inspections: Arc::new(Semaphore::new(1)),
            overdue: Arc::default(),
        }
    }

    /// Whether so many reads have not returned that no further one should start.
    pub(super) fn is_exhausted(&self) -> bool {
        self.overdue.load(Relaxed) >= OVERDUE_LIMIT
    }

    /// Runs a short read; None if it panics.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        process: &Process,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.run(&self.reads, deadline::SOON, process, work).await
    }

    /// Runs the inspection of an executable, one at a time; None if it panics.
    pub(super) async fn inspect<T: Send + 'static>(
        &self,
        process: &Process,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.run(&self.inspections, INSPECTION_TIME, process, work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        limit: Duration,
        process: &Process,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = permits.clone().acquire_owned().await;
        let mut task = tokio::task::spawn_blocking(work);
        match timeout(limit, &mut task).await {
            Ok(outcome) => outcome.ok(),
            Err(_) => {
                let _overdue = Overdue::new(process, self.overdue.clone());
                drop(permit);
                task.await.ok()
            }
        }
    }
}

/// A read that exceeded its time, until it returns.
struct Overdue(Arc<AtomicUsize>);

impl Overdue {
    fn new(process: &Process, count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        deadline::note_late();
        warn!(
            "process {} ({}): its file system does not respond: it is watched when it does",
            process.pid,
            process.exe.display()
        );
        Self(count)
    }
}

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_read_that_does_not_return_gives_up_its_permit() {
        let blocking = Blocking {
            reads: Arc::new(Semaphore::new(1)),
            ..Blocking::new()
        };
        let own = Process::read(std::process::id()).unwrap();
        let (answer, answered) = mpsc::channel::<u32>();
        let (first, process) = (blocking.clone(), own.clone());
        let limit = Duration::from_millis(10);
        let stuck =
            tokio::spawn(async move { first.run(&first.reads, limit, &process, move || answered.recv()).await });
        while blocking.overdue.load(Relaxed) == 0 {
            tokio::time::sleep(limit).await;
        }
        assert_eq!(blocking.read(&own, || 7).await, Some(7));
        answer.send(8).unwrap();
        assert_eq!(stuck.await.unwrap(), Some(Ok(8)));
        assert_eq!(blocking.overdue.load(Relaxed), 0);
        assert!(!blocking.is_exhausted());
    }

    #[tokio::test]
    async fn a_read_that_panics_has_no_result() {
        let own = Process::read(std::process::id()).unwrap();
        let outcome: Option<u32> = Blocking::new().read(&own, || panic!("not a number")).await;
        assert_eq!(outcome, None);
    }
}
