//! Probes that are being detached from processes that ended as targets but live on, as other programs. New probes wait for that: otherwise a
//! hit would run both.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::budget::Plane;

/// How long new probes wait at most.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Detaching {
    /// Tasks that detach, by pid, and when the last was added.
    tasks: HashMap<u32, (Instant, Vec<JoinHandle<()>>)>,
    /// Changes that ran when their target ended, by target id and plane: the pid, and when that was.
    changes: HashMap<(u32, Plane), (u32, Instant)>,
}

impl Detaching {
    /// Adds a task that detaches probes of a process.
    pub(super) fn add(&mut self, pid: u32, task: JoinHandle<()>) {
        let entry = self.tasks.entry(pid);
        let (since, tasks) = entry.or_insert_with(|| (Instant::now(), Vec::new()));
        *since = Instant::now();
        tasks.push(task);
    }

    /// A change of a plane's probes runs while their target ends: it may still attach some.
    pub(super) fn add_change(&mut self, target_id: u32, plane: Plane, pid: u32) {
        self.changes.insert((target_id, plane), (pid, Instant::now()));
    }

    /// That change is finished. Returns the pid, if it was added.
    pub(super) fn remove_change(&mut self, change: (u32, Plane)) -> Option<u32> {
        self.changes.remove(&change).map(|(pid, _)| pid)
    }

    /// Whether probes of a process are still being detached.
    pub(super) fn has(&mut self, pid: u32) -> bool {
        self.remove_finished();
        self.tasks.contains_key(&pid) || self.changes.values().any(|(of, _)| *of == pid)
    }

    /// Removes what is finished, or has taken too long.
    pub(super) fn remove_finished(&mut self) {
        self.tasks.retain(|_, (since, tasks)| {
            tasks.retain(|task| !task.is_finished());
            !tasks.is_empty() && since.elapsed() < LIMIT
        });
        self.changes.retain(|_, (_, since)| since.elapsed() < LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_waits_until_its_tasks_and_changes_are_finished() {
        let mut detaching = Detaching::default();
        assert!(!detaching.has(11));
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move { finished.await.unwrap() });
        detaching.add(11, task);
        assert!(detaching.has(11) && !detaching.has(12));
        finish.send(()).unwrap();
        while detaching.has(11) {
            tokio::task::yield_now().await;
        }
        for plane in [Plane::Sample, Plane::Probes] {
            detaching.add_change(7, plane, 11);
        }
        for plane in [Plane::Sample, Plane::Probes] {
            assert!(detaching.has(11));
            let removed = [(); 2].map(|()| detaching.remove_change((7, plane)));
            assert_eq!(removed, [Some(11), None]);
        }
        assert!(!detaching.has(11));
    }
}
