//! What executables are: each is inspected once, however many processes run it. What a new process runs is inspected beside
//! the loop that takes events, one executable at a time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::{Semaphore, mpsc};

use crate::{
    discover::{Process, ProcessError, process::FileId},
    heap,
    inspect::{Image, InspectError},
};

/// Inspected executables that are remembered.
const CACHED: usize = 256;
/// Inspections that ended and wait to be taken note of.
const DONE: usize = 16;

/// What inspecting an executable gave.
pub(super) type Inspected = Result<Option<Arc<Image>>, InspectError>;

/// An inspection that ended; None when the process did before.
pub struct Looked {
    id: FileId,
    inspected: Option<Inspected>,
}

/// Executables that are known or being looked at.
pub struct Images {
    known: HashMap<FileId, Inspected>,
    /// The oldest first.
    order: VecDeque<FileId>,
    /// Processes that wait for what they run to be known.
    waiting: HashMap<FileId, Vec<u32>>,
    one: Arc<Semaphore>,
    tasks_to_watch: mpsc::Sender<Looked>,
    pub done: mpsc::Receiver<Looked>,
}

impl Images {
    pub(super) fn new() -> Self {
        let (tasks_to_watch, done) = mpsc::channel(DONE);
        Self {
            known: HashMap::new(),
            order: VecDeque::new(),
            waiting: HashMap::new(),
            one: Arc::new(Semaphore::new(1)),
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
        let inspected = look(process)?;
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
        tokio::spawn(async move {
            let permit = one.acquire_owned().await;
            let inspected = tokio::task::spawn_blocking(move || look(&process)).await;
            drop(permit);
            let inspected = inspected.ok().and_then(Result::ok);
            // The watch is gone only when the agent ends.
            let _ = tasks_to_watch.send(Looked { id, inspected }).await;
        });
        Ok(false)
    }

    /// Takes note of an inspection; the processes that waited for it.
    pub(super) fn looked(&mut self, Looked { id, inspected }: Looked) -> Vec<u32> {
        if let Some(inspected) = inspected {
            self.keep(id, inspected);
        }
        self.waiting.remove(&id).unwrap_or_default()
    }

    fn keep(&mut self, id: FileId, inspected: Inspected) {
        if self.order.len() == CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
        self.known.insert(id, inspected);
    }
}

fn look(process: &Process) -> Result<Inspected, ProcessError> {
    let inspected = match process.inspect()? {
        Err(InspectError::NotElf) => Ok(None),
        outcome => outcome.map(|image| image.map(Arc::new)),
    };
    // Of a large executable's tables a fifth stays.
    heap::give_back();
    Ok(inspected)
}
