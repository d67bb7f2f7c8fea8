//! What executables are: each is inspected once, however many processes run it. What a new process runs is inspected beside
//! the loop that takes events, one executable at a time.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    os::unix::fs::FileExt as _,
    panic::catch_unwind,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use log::debug;
use tokio::sync::{Semaphore, mpsc};

use super::patience::{Waiting, with_patience};
use crate::{
    deadline,
    discover::{Process, ProcessError, objects, process::FileId},
    heap,
    inspect::{Image, InspectError},
};

/// Inspected executables that are remembered.
const CACHED: usize = 256;
/// Inspections that ended and wait to be taken note of.
const DONE: usize = 16;

/// Processes that are asked at once which file they run; those that do not answer in time are not among them.
const TOGETHER: usize = 32;
/// Most that do not answer: while there are so many no other is asked, but looked at again later.
const UNANSWERED: usize = 256;
/// How long others wait for one that is inspected: longer than the largest executables take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What inspecting an executable gave.
pub(super) type Inspected = Result<Option<Arc<dyn Image>>, InspectError>;

/// A look beside the loop that is over.
pub enum Looked {
    Identified(Identified),
    Executable(Executable),
    Host(Host),
}

/// Which file a process runs; an error is that it could not be asked, as the process ended.
pub struct Identified {
    process: Process,
    id: Result<FileId, ProcessError>,
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
pub type Inspect = fn(&Process) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError>;

/// Executables that are known or being looked at.
pub struct Images {
    known: HashMap<FileId, Inspected>,
    /// The oldest first.
    order: VecDeque<FileId>,
    /// Processes that are asked which file they run, and whether another look came to their pid meanwhile; how many of all looks were not
    /// answered in time.
    identifying: HashMap<u32, bool>,
    some: Arc<Semaphore>,
    unanswered: Arc<AtomicUsize>,
    /// Processes that wait for what they run to be known.
    waiting: HashMap<FileId, Vec<u32>>,
    /// Those that could not be read just now, and still live.
    pub(super) again: Vec<u32>,
    /// Processes whose shared objects are looked at.
    hosts: usize,
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
            identifying: HashMap::new(),
            some: Arc::new(Semaphore::new(TOGETHER)),
            unanswered: Arc::default(),
            waiting: HashMap::new(),
            again: Vec::new(),
            hosts: 0,
            one: Arc::new(Semaphore::new(1)),
            inspect,
            panics: 0,
            tasks_to_watch,
            done,
        }
    }

    /// What a process runs; inspected here and now when it is not known.
    pub(super) fn of(&mut self, process: &Process) -> Result<Inspected, ProcessError> {
        let asked = process.clone();
        let id = match deadline::FILES.within(process.pid, deadline::LONG, move || asked.exe_id()) {
            Ok(id) => id?,
            Err(late) => return Ok(Err(InspectError::NoAnswer(late.to_string()))),
        };
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let (inspect, pid, process) = (self.inspect, process.pid, process.clone());
        match deadline::FILES.within(pid, deadline::LONG, move || look(inspect, &process)) {
            Ok(inspected) => {
                let inspected = inspected?;
                self.keep(id, inspected.clone());
                Ok(inspected)
            }
            Err(late) => Ok(Err(InspectError::NoAnswer(late.to_string()))),
        }
    }

    /// Asks which file a process runs, beside the loop and for as long as that takes: [`Looked::Identified`] says it. False where too many
    /// do not answer.
    pub(super) fn identify(&mut self, process: Process) -> bool {
        if self.unanswered.load(Relaxed) >= UNANSWERED {
            return false;
        }
        if let Some(another_look) = self.identifying.get_mut(&process.pid) {
            *another_look = true;
            return true;
        }
        self.identifying.insert(process.pid, false);
        let tasks_to_watch = self.tasks_to_watch.clone();
        let (some, unanswered) = (self.some.clone(), self.unanswered.clone());
        let asked = process.clone();
        tokio::spawn(async move {
            let late = Waiting::new(&process, unanswered);
            let id = with_patience(some, deadline::SOON, late, move || asked.exe_id()).await;
            let ended = ProcessError::Ended { pid: process.pid };
            let id = id.unwrap_or(Err(ended));
            // The watch is gone only when the agent ends.
            let _ = tasks_to_watch
                .send(Looked::Identified(Identified { process, id }))
                .await;
        });
        true
    }

    /// Takes note of which file a process runs: what that is, if it is known; if not, it will be, and [`Self::looked`] names the process
    /// then.
    pub(super) fn identified(&mut self, Identified { process, id }: Identified) -> Option<(Process, Inspected)> {
        let another_look = self.identifying.remove(&process.pid).unwrap_or_default();
        let id = match id {
            Ok(id) => id,
            Err(error) => {
                debug!("{error}");
                // That look may have been at another process, which has the pid by now.
                if error.may_pass() || another_look {
                    self.again.push(process.pid);
                }
                return None;
            }
        };
        if let Some(known) = self.known.get(&id) {
            return Some((process, known.clone()));
        }
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.push(process.pid);
            return None;
        }
        self.waiting.insert(id, vec![process.pid]);
        let (one, tasks_to_watch, inspect) = (self.one.clone(), self.tasks_to_watch.clone(), self.inspect);
        let (some, unanswered) = (self.some.clone(), self.unanswered.clone());
        let touched = process.exe_path();
        tokio::spawn(async move {
            // Where nothing of it can be read it keeps nobody waiting for the one that is inspected.
            let late = Waiting::new(&process, unanswered.clone());
            with_patience(some, deadline::SOON, late, move || touch(&touched)).await;
            let late = Waiting::new(&process, unanswered);
            let inspected = with_patience(one, PATIENCE, late, move || look(inspect, &process)).await;
            let inspected = inspected.unwrap_or(Ok(Err(InspectError::Panicked)));
            let _ = tasks_to_watch
                .send(Looked::Executable(Executable { id, inspected }))
                .await;
        });
        None
    }

    /// Whether something is asked or looked at.
    pub fn is_busy(&self) -> bool {
        !self.identifying.is_empty() || !self.waiting.is_empty() || self.hosts > 0
    }

    /// Looks for a runtime in the shared objects of a process; [`Looked::Host`] says what there was.
    pub(super) fn look_within(&mut self, process: Process) {
        self.hosts += 1;
        let (one, tasks_to_watch) = (self.one.clone(), self.tasks_to_watch.clone());
        let late = Waiting::new(&process, self.unanswered.clone());
        tokio::spawn(async move {
            let asked = process.clone();
            let found = with_patience(one, PATIENCE, late, move || {
                let found = objects::runtime_in(&asked);
                heap::give_back();
                found
            });
            // What panics in there is caught there.
            let found = found.await.flatten();
            let _ = tasks_to_watch.send(Looked::Host(Host { process, found })).await;
        });
    }

    /// A look for a runtime in shared objects is over.
    pub(super) fn looked_within(&mut self) {
        self.hosts -= 1;
    }

    /// Takes note of an inspection; the processes that are to be looked at now.
    pub(super) fn looked(&mut self, Executable { id, inspected }: Executable) -> Vec<u32> {
        let mut waited = self.waiting.remove(&id).unwrap_or_default();
        match inspected {
            Ok(inspected) => self.keep(id, inspected),
            // It was inspected by way of the first: the others may still be read.
            Err(error) => {
                debug!("{error}");
                let first = waited.drain(..waited.len().min(1));
                self.again.extend(first.filter(|_| error.may_pass()));
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

/// Asks for what is read first of an executable, its begin and its end; what fails here is told by who reads it.
fn touch(exe: &Path) {
    let Ok(file) = File::open(exe) else { return };
    let end = file.metadata().map_or(0, |metadata| metadata.len());
    for at in [0, end.saturating_sub(1)] {
        let _ = file.read_at(&mut [0], at);
    }
}

/// A panic is an error of ours in reading what others made: it must neither end the agent nor be tried again.
fn look(inspect: Inspect, process: &Process) -> Result<Inspected, ProcessError> {
    let inspected = catch_unwind(|| inspect(process)).unwrap_or(Ok(Err(InspectError::Panicked)))?;
    let inspected = match inspected {
        Err(InspectError::NotElf) => Ok(None),
        outcome => outcome.map(|image| image.map(Arc::from)),
    };
    // Of a large executable's tables a fifth stays.
    heap::give_back();
    Ok(inspected)
}

#[cfg(test)]
mod tests {
    use super::*;

    static TRIES: AtomicUsize = AtomicUsize::new(0);

    fn panics(_: &Process) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError> {
        TRIES.fetch_add(1, Relaxed);
        panic!("not a number");
    }

    fn cannot_be_read(process: &Process) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError> {
        Err(ProcessError::Io {
            pid: process.pid,
            what: "exe",
            source: std::io::Error::from_raw_os_error(libc::EMFILE),
        })
    }

    #[tokio::test]
    async fn a_process_that_cannot_be_read_just_now_is_looked_at_again() {
        let mut images = Images::new(cannot_be_read);
        let own = Process::read(std::process::id()).unwrap();
        assert!(identified(&mut images, &own).await.is_none());
        let looked = executable(&mut images).await;
        assert!(images.looked(looked).is_empty());
        assert_eq!(images.again, [own.pid]);
    }

    fn ends(process: &Process) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError> {
        Err(ProcessError::Ended { pid: process.pid })
    }

    /// What the file that a process runs is, when it is known which it is.
    async fn identified(images: &mut Images, process: &Process) -> Option<(Process, Inspected)> {
        assert!(images.identify(process.clone()) && images.is_busy());
        let Some(Looked::Identified(found)) = images.done.recv().await else {
            panic!("a file was identified");
        };
        images.identified(found)
    }

    /// The executable that was looked at.
    async fn executable(images: &mut Images) -> Executable {
        let Some(Looked::Executable(looked)) = images.done.recv().await else {
            panic!("an executable was looked at");
        };
        looked
    }

    #[tokio::test]
    async fn an_inspection_that_panics_is_said_and_not_tried_again() {
        let mut images = Images::new(panics);
        let own = Process::read(std::process::id()).unwrap();
        assert!(identified(&mut images, &own).await.is_none());
        let looked = executable(&mut images).await;
        assert_eq!(images.looked(looked), [own.pid]);
        assert!(!images.is_busy());
        let (process, inspected) = identified(&mut images, &own).await.unwrap();
        assert_eq!((process.pid, inspected.unwrap_err()), (own.pid, InspectError::Panicked));
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
        assert!(identified(&mut images, &own).await.is_none());
        for pid in others {
            images.waiting.values_mut().for_each(|waiting| waiting.push(pid));
        }
        let looked = executable(&mut images).await;
        assert_eq!(images.looked(looked), others);
        assert!(images.again.is_empty());
        assert!(images.known.is_empty());
    }
}
