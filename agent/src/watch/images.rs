//! What executables are: each is inspected once, however many processes run it. What a new process runs is inspected beside
//! the loop that takes events, one executable at a time.

use std::{
    collections::{HashMap, VecDeque},
    panic::catch_unwind,
    sync::Arc,
};

use log::debug;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{
    deadline::{self, Late},
    discover::{Process, ProcessError, objects, process::FileId},
    heap,
    inspect::{Image, InspectError},
};

/// Inspected executables that are remembered.
const CACHED: usize = 256;
/// Inspections that ended and wait to be taken note of.
const DONE: usize = 16;

/// What inspecting an executable gave.
pub(super) type Inspected = Result<Option<Arc<Image>>, InspectError>;

/// A look beside the loop that is over.
pub enum Looked {
    Executable(Executable),
    Host(Host),
}

/// What an executable is; an error is that the process could not be read, as it ended.
pub struct Executable {
    id: FileId,
    inspected: Result<Inspected, ProcessError>,
}

/// A process whose executable is of no runtime that is known, and what is in its shared objects.
pub struct Host {
    pub(super) process: Process,
    pub(super) found: Option<InspectError>,
}

/// How an executable is inspected.
type Inspect = fn(&Process) -> Result<Result<Option<Image>, InspectError>, ProcessError>;

/// Executables that are known or being looked at.
pub struct Images {
    known: HashMap<FileId, Inspected>,
    /// The oldest first.
    order: VecDeque<FileId>,
    /// Processes that wait for what they run to be known.
    waiting: HashMap<FileId, Vec<u32>>,
    one: Arc<Semaphore>,
    inspect: Inspect,
    /// Inspections that panicked.
    pub panics: u64,
    tasks_to_watch: mpsc::Sender<Looked>,
    pub done: mpsc::Receiver<Looked>,
}

impl Images {
    pub(super) fn new(inspect: Inspect) -> Self {
        let (tasks_to_watch, done) = mpsc::channel(DONE);
        Self {
            known: HashMap::new(),
            order: VecDeque::new(),
            waiting: HashMap::new(),
            one: Arc::new(Semaphore::new(1)),
            inspect,
            panics: 0,
            tasks_to_watch,
            done,
        }
    }

    /// What a process runs; inspected here and now when it is not known.
    pub(super) fn of(&mut self, process: &Process) -> Result<Inspected, ProcessError> {
        let id = process.exe_id()?;
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let (inspect, process) = (self.inspect, process.clone());
        let inspected = deadline::within(deadline::LONG, move || look(inspect, &process));
        let inspected = inspected.unwrap_or_else(|late| Ok(Err(InspectError::NoAnswer(late))))?;
        self.keep(id, inspected.clone());
        Ok(inspected)
    }

    /// Whether what a process runs is known; if not, it will be, and [`Self::looked`] names the process then.
    pub(super) fn is_known(&mut self, process: &Process) -> Result<bool, ProcessError> {
        let id = process.exe_id()?;
        if self.known.contains_key(&id) {
            return Ok(true);
        }
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.push(process.pid);
            return Ok(false);
        }
        self.waiting.insert(id, vec![process.pid]);
        let (one, tasks_to_watch, process) = (self.one.clone(), self.tasks_to_watch.clone(), process.clone());
        let inspect = self.inspect;
        tokio::spawn(async move {
            let permit = one.acquire_owned().await;
            let inspected = tokio::task::spawn_blocking(move || look(inspect, &process));
            let inspected = timeout(deadline::LONG, inspected).await;
            drop(permit);
            // It goes on alone, and is not begun again.
            let inspected = inspected.unwrap_or(Ok(Ok(Err(InspectError::NoAnswer(Late::Unanswered(deadline::LONG))))));
            let inspected = inspected.unwrap_or(Ok(Err(InspectError::Panicked)));
            // The watch is gone only when the agent ends.
            let _ = tasks_to_watch
                .send(Looked::Executable(Executable { id, inspected }))
                .await;
        });
        Ok(false)
    }

    /// Looks for a runtime in the shared objects of a process; [`Looked::Host`] says what there was.
    pub(super) fn look_within(&self, process: Process) {
        let (one, tasks_to_watch) = (self.one.clone(), self.tasks_to_watch.clone());
        tokio::spawn(async move {
            let permit = one.acquire_owned().await;
            let found = tokio::task::spawn_blocking(move || {
                let found = objects::runtime_in(&process);
                heap::give_back();
                Host { process, found }
            });
            // What panics in there is caught there; what never answers goes on alone.
            if let Ok(Ok(host)) = timeout(deadline::LONG, found).await {
                let _ = tasks_to_watch.send(Looked::Host(host)).await;
            }
            drop(permit);
        });
    }

    /// Takes note of an inspection; the processes that are to be looked at now.
    pub(super) fn looked(&mut self, Executable { id, inspected }: Executable) -> Vec<u32> {
        let mut waited = self.waiting.remove(&id).unwrap_or_default();
        match inspected {
            Ok(inspected) => self.keep(id, inspected),
            // It was inspected by way of the first, which ended: the others can still be read.
            Err(error) => {
                debug!("{error}");
                waited.drain(..waited.len().min(1));
            }
        }
        waited
    }

    fn keep(&mut self, id: FileId, inspected: Inspected) {
        if self.order.len() == CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.panics += u64::from(matches!(inspected, Err(InspectError::Panicked)));
        self.order.push_back(id);
        self.known.insert(id, inspected);
    }
}

/// A panic is an error of ours in reading what others made: it must neither end the agent nor be tried again.
fn look(inspect: Inspect, process: &Process) -> Result<Inspected, ProcessError> {
    let inspected = catch_unwind(|| inspect(process)).unwrap_or(Ok(Err(InspectError::Panicked)))?;
    let inspected = match inspected {
        Err(InspectError::NotElf) => Ok(None),
        outcome => outcome.map(|image| image.map(Arc::new)),
    };
    // Of a large executable's tables a fifth stays.
    heap::give_back();
    Ok(inspected)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    static TRIES: AtomicUsize = AtomicUsize::new(0);

    fn panics(_: &Process) -> Result<Result<Option<Image>, InspectError>, ProcessError> {
        TRIES.fetch_add(1, Relaxed);
        panic!("not a number");
    }

    fn ends(process: &Process) -> Result<Result<Option<Image>, InspectError>, ProcessError> {
        Err(ProcessError::Ended { pid: process.pid })
    }

    #[tokio::test]
    async fn an_inspection_that_panics_is_said_and_not_tried_again() {
        let mut images = Images::new(panics);
        let own = Process::read(std::process::id()).unwrap();
        assert!(!images.is_known(&own).unwrap());
        let Some(Looked::Executable(looked)) = images.done.recv().await else {
            panic!("an executable was looked at");
        };
        assert_eq!(images.looked(looked), [own.pid]);
        assert!(images.is_known(&own).unwrap());
        for _ in 0..2 {
            assert_eq!(images.of(&own).unwrap().unwrap_err(), InspectError::Panicked);
        }
        assert_eq!((TRIES.load(Relaxed), images.panics), (1, 1));
    }

    #[tokio::test]
    async fn when_the_inspected_process_ends_the_others_are_looked_at() {
        let mut images = Images::new(ends);
        let own = Process::read(std::process::id()).unwrap();
        let others = [1_000_001, 1_000_002];
        assert!(!images.is_known(&own).unwrap());
        for pid in others {
            images.waiting.values_mut().for_each(|waiting| waiting.push(pid));
        }
        let Some(Looked::Executable(looked)) = images.done.recv().await else {
            panic!("an executable was looked at");
        };
        assert_eq!(images.looked(looked), others);
        assert!(images.known.is_empty());
    }
}
