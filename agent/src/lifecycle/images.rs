//! What executables are. Each is inspected once, however many processes run it; the executable of a new process is inspected in a thread of
//! its own, one executable at a time.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    os::unix::fs::FileExt as _,
    panic::catch_unwind,
    path::Path,
    sync::Arc,
};

use log::debug;
use tokio::sync::mpsc;

use super::blocking::Blocking;
use crate::{
    deadline,
    discover::{Process, ProcessError, objects, process::FileId},
    heap,
    inspect::{Image, InspectError},
};

/// Inspected executables that are remembered.
const CACHE_SIZE: usize = 256;
/// Finished inspections that wait to be handled.
const FINISHED: usize = 16;

/// The outcome of inspecting an executable.
pub(super) type Inspected = Result<Option<Arc<dyn Image>>, InspectError>;

/// A finished step of an inspection.
pub enum Inspection {
    Identified(Identified),
    Executable(Executable),
    Libraries(LibrarySearch),
}

/// Which file a process runs; an error if the process could not be read, because it ended.
pub struct Identified {
    process: Process,
    file: Result<FileId, ProcessError>,
}

/// What an executable is; an error if the process could not be read, because it ended.
pub struct Executable {
    file: FileId,
    inspected: Result<Inspected, ProcessError>,
}

/// A process whose executable is of no known runtime, and the runtime in its shared objects.
pub struct LibrarySearch {
    pub(super) process: Process,
    pub(super) found: Option<InspectError>,
}

/// How an executable is inspected.
pub type Inspect = fn(&Process) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError>;

/// Executables that are known or being inspected.
pub struct Images {
    cache: Cache,
    /// Processes whose file is being identified, and whether another check of their pid came meanwhile.
    identifying: HashMap<u32, bool>,
    /// Processes that wait until their file is inspected.
    waiting: HashMap<FileId, Vec<u32>>,
    /// Processes that could not be read just now, and may still live.
    pub(super) retry: Vec<u32>,
    /// Searches of shared objects that run.
    searches: usize,
    blocking: Blocking,
    inspect: Inspect,
    tasks_to_lifecycle: mpsc::Sender<Inspection>,
    pub finished: mpsc::Receiver<Inspection>,
}

impl Images {
    pub(super) fn new(inspect: Inspect) -> Self {
        let (tasks_to_lifecycle, finished) = mpsc::channel(FINISHED);
        Self {
            cache: Cache::default(),
            identifying: HashMap::new(),
            waiting: HashMap::new(),
            retry: Vec::new(),
            searches: 0,
            blocking: Blocking::new(),
            inspect,
            tasks_to_lifecycle,
            finished,
        }
    }

    /// Inspections that panicked.
    pub fn panics(&self) -> u64 {
        self.cache.panics
    }

    /// Whether an inspection runs.
    pub fn is_busy(&self) -> bool {
        !self.identifying.is_empty() || !self.waiting.is_empty() || self.searches > 0
    }

    /// What a process runs; inspects it and waits for that if it is not known.
    pub(super) fn inspect_now(&mut self, process: &Process) -> Result<Inspected, ProcessError> {
        let (pid, identified) = (process.pid, process.clone());
        let file = match deadline::FILES.within(pid, deadline::LONG, move || identified.exe_id()) {
            Ok(file) => file?,
            Err(late) => return Ok(Err(InspectError::NoAnswer(late.to_string()))),
        };
        if let Some(known) = self.cache.get(&file) {
            return Ok(known);
        }
        let (inspect, process) = (self.inspect, process.clone());
        match deadline::FILES.within(pid, deadline::LONG, move || run_inspection(inspect, &process)) {
            Ok(inspected) => {
                let inspected = inspected?;
                self.cache.insert(file, inspected.clone());
                Ok(inspected)
            }
            Err(late) => Ok(Err(InspectError::NoAnswer(late.to_string()))),
        }
    }

    /// Starts to identify the file that a process runs; [`Inspection::Identified`] follows. False if too many file systems do not respond.
    pub(super) fn identify(&mut self, process: Process) -> bool {
        if self.blocking.is_exhausted() {
            return false;
        }
        if let Some(checked_again) = self.identifying.get_mut(&process.pid) {
            *checked_again = true;
            return true;
        }
        self.identifying.insert(process.pid, false);
        let (blocking, tasks_to_lifecycle) = (self.blocking.clone(), self.tasks_to_lifecycle.clone());
        tokio::spawn(async move {
            let identified = process.clone();
            let file = blocking.read(&process, move || identified.exe_id()).await;
            let file = file.unwrap_or(Err(ProcessError::Ended { pid: process.pid }));
            // The lifecycle is gone only when the agent ends.
            let _ = tasks_to_lifecycle
                .send(Inspection::Identified(Identified { process, file }))
                .await;
        });
        true
    }

    /// Handles an identified file. Returns what it is, if it is known. Otherwise its inspection is started, and [`Self::on_executable`] names
    /// the process when that is finished.
    pub(super) fn on_identified(&mut self, Identified { process, file }: Identified) -> Option<(Process, Inspected)> {
        let checked_again = self.identifying.remove(&process.pid).unwrap_or_default();
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                debug!("{error}");
                // The other check may have been for another process, which has the pid by now.
                if error.may_pass() || checked_again {
                    self.retry.push(process.pid);
                }
                return None;
            }
        };
        if let Some(known) = self.cache.get(&file) {
            return Some((process, known));
        }
        if let Some(waiting) = self.waiting.get_mut(&file) {
            waiting.push(process.pid);
            return None;
        }
        self.waiting.insert(file, vec![process.pid]);
        let (blocking, tasks_to_lifecycle, inspect) =
            (self.blocking.clone(), self.tasks_to_lifecycle.clone(), self.inspect);
        tokio::spawn(async move {
            let exe = process.exe_path();
            // If nothing of the file can be read, this waits, and not the one permit for inspections.
            blocking.read(&process, move || read_ends(&exe)).await;
            let inspected = process.clone();
            let inspected = blocking.inspect(&process, move || run_inspection(inspect, &inspected));
            let inspected = inspected.await.unwrap_or(Ok(Err(InspectError::Panicked)));
            let _ = tasks_to_lifecycle
                .send(Inspection::Executable(Executable { file, inspected }))
                .await;
        });
        None
    }

    /// Handles an inspected executable. Returns the processes to check now.
    pub(super) fn on_executable(&mut self, Executable { file, inspected }: Executable) -> Vec<u32> {
        let mut waiting = self.waiting.remove(&file).unwrap_or_default();
        match inspected {
            Ok(inspected) => self.cache.insert(file, inspected),
            // The file was read through the first process: the others may still be readable.
            Err(error) => {
                debug!("{error}");
                let first = waiting.drain(..waiting.len().min(1));
                self.retry.extend(first.filter(|_| error.may_pass()));
            }
        }
        waiting
    }

    /// Starts to search the shared objects of a process for a runtime; [`Inspection::Libraries`] follows.
    pub(super) fn search_libraries(&mut self, process: Process) {
        self.searches += 1;
        let (blocking, tasks_to_lifecycle) = (self.blocking.clone(), self.tasks_to_lifecycle.clone());
        tokio::spawn(async move {
            let searched = process.clone();
            let found = blocking.inspect(&process, move || {
                let found = objects::runtime_in(&searched);
                heap::give_back();
                found
            });
            // It catches panics itself.
            let found = found.await.flatten();
            let search = LibrarySearch { process, found };
            let _ = tasks_to_lifecycle.send(Inspection::Libraries(search)).await;
        });
    }

    /// A search of shared objects is finished.
    pub(super) fn on_libraries(&mut self) {
        self.searches -= 1;
    }
}

/// Inspected executables.
#[derive(Default)]
struct Cache {
    known: HashMap<FileId, Inspected>,
    /// The oldest first.
    order: VecDeque<FileId>,
    /// Inspections that panicked.
    panics: u64,
}

impl Cache {
    fn get(&self, file: &FileId) -> Option<Inspected> {
        self.known.get(file).cloned()
    }

    fn insert(&mut self, file: FileId, inspected: Inspected) {
        if self.order.len() == CACHE_SIZE
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.panics += u64::from(matches!(inspected, Err(InspectError::Panicked)));
        self.order.push_back(file);
        self.known.insert(file, inspected);
    }
}

/// Reads the first and the last byte of an executable, the parts that an inspection reads first. It ignores errors: the inspection reports
/// them.
fn read_ends(exe: &Path) {
    let Ok(file) = File::open(exe) else { return };
    let end = file.metadata().map_or(0, |metadata| metadata.len());
    for at in [0, end.saturating_sub(1)] {
        let _ = file.read_at(&mut [0], at);
    }
}

/// A panic is an error in the agent's reader of foreign files: it must neither end the agent nor be tried again.
fn run_inspection(inspect: Inspect, process: &Process) -> Result<Inspected, ProcessError> {
    let inspected = catch_unwind(|| inspect(process)).unwrap_or(Ok(Err(InspectError::Panicked)))?;
    let inspected = match inspected {
        Err(InspectError::NotElf) => Ok(None),
        outcome => outcome.map(|image| image.map(Arc::from)),
    };
    // Only a fifth of the tables that a large executable takes is kept.
    heap::give_back();
    Ok(inspected)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
    async fn a_process_that_cannot_be_read_just_now_is_checked_again() {
        let mut images = Images::new(cannot_be_read);
        let own = Process::read(std::process::id()).unwrap();
        assert!(identified(&mut images, &own).await.is_none());
        let finished = executable(&mut images).await;
        assert!(images.on_executable(finished).is_empty());
        assert_eq!(images.retry, [own.pid]);
    }

    fn ends(process: &Process) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError> {
        Err(ProcessError::Ended { pid: process.pid })
    }

    /// What a process runs, if that is known.
    async fn identified(images: &mut Images, process: &Process) -> Option<(Process, Inspected)> {
        assert!(images.identify(process.clone()) && images.is_busy());
        let Some(Inspection::Identified(found)) = images.finished.recv().await else {
            panic!("a file was identified");
        };
        images.on_identified(found)
    }

    /// The executable that was inspected.
    async fn executable(images: &mut Images) -> Executable {
        let Some(Inspection::Executable(finished)) = images.finished.recv().await else {
            panic!("an executable was inspected");
        };
        finished
    }

    #[tokio::test]
    async fn an_inspection_that_panics_is_reported_and_not_tried_again() {
        let mut images = Images::new(panics);
        let own = Process::read(std::process::id()).unwrap();
        assert!(identified(&mut images, &own).await.is_none());
        let finished = executable(&mut images).await;
        assert_eq!(images.on_executable(finished), [own.pid]);
        assert!(!images.is_busy());
        let (process, inspected) = identified(&mut images, &own).await.unwrap();
        assert_eq!((process.pid, inspected.unwrap_err()), (own.pid, InspectError::Panicked));
        for _ in 0..2 {
            assert_eq!(images.inspect_now(&own).unwrap().unwrap_err(), InspectError::Panicked);
        }
        assert_eq!((TRIES.load(Relaxed), images.panics()), (1, 1));
    }

    #[tokio::test]
    async fn when_the_inspected_process_ends_the_others_are_checked() {
        let mut images = Images::new(ends);
        let own = Process::read(std::process::id()).unwrap();
        let others = [1_000_001, 1_000_002];
        assert!(identified(&mut images, &own).await.is_none());
        for pid in others {
            images.waiting.values_mut().for_each(|waiting| waiting.push(pid));
        }
        let finished = executable(&mut images).await;
        assert_eq!(images.on_executable(finished), others);
        assert!(images.retry.is_empty());
        assert!(images.cache.known.is_empty());
    }
}
