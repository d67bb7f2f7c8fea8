//! What a process or a file system may never answer, such as a read of a page that nobody fills or a file on a server that is gone:
//! done in a thread of its own, and waited for no longer than a deadline.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Relaxed},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

/// For what takes some milliseconds at the most where nothing is wrong, on a machine that may be busy.
pub const SOON: Duration = Duration::from_secs(2);
/// For reading an executable, however large.
pub const LONG: Duration = Duration::from_secs(60);

/// Threads that nobody waits for any more, of one kind. Nothing of it is asked while there are so many.
const MOST: usize = 256;
/// What is not of a process.
pub const HOST: u32 = 0;

/// Reads of processes' memory, of files, and words to standard error: those that hang take nothing from the others.
pub static MEMORY: Readers = Readers::new();
pub static FILES: Readers = Readers::new();
pub static WORDS: Readers = Readers::new();

static LATE: AtomicU64 = AtomicU64::new(0);

/// What is asked of one kind, by pid: of a process that has not answered nothing else is asked.
pub struct Readers {
    /// Those whose threads nobody waits for any more.
    left: Mutex<BTreeSet<u32>>,
}

/// There was no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    #[error("no answer within {0:?}")]
    Unanswered(Duration),
    #[error("an earlier read is still pending")]
    Outstanding,
    #[error("not started while {MOST} other reads are pending")]
    NotAsked,
    #[error("the agent failed on it, which is a bug")]
    Panicked,
}

impl From<Late> for io::Error {
    fn from(late: Late) -> Self {
        Self::new(io::ErrorKind::TimedOut, late)
    }
}

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Does what the thread whose it is waits for.
    static WORKER: RefCell<Option<Sender<Work>>> = const { RefCell::new(None) };
}

/// Where a piece of work stands.
const UNDER_WAY: u8 = 0;
const DONE: u8 = 1;
const LEFT: u8 = 2;

/// How often there was no answer in time so far.
pub fn late() -> u64 {
    LATE.load(Relaxed)
}

/// Counts an answer that did not come in time.
pub fn note_late() {
    LATE.fetch_add(1, Relaxed);
}

impl Readers {
    const fn new() -> Self {
        Self {
            left: Mutex::new(BTreeSet::new()),
        }
    }

    /// What `work`, which is about a process, gives, or that it takes longer than `most`: then it goes on alone, and what it gives is
    /// dropped. A panic of it ends nothing else.
    pub fn within<T: Send + 'static>(
        &'static self,
        pid: u32,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Late> {
        let outcome = self
            .ask(pid, most, work)
            .and_then(|done| done.map_err(|_| Late::Panicked));
        if outcome.is_err() {
            note_late();
        }
        outcome
    }

    fn ask<T: Send + 'static>(
        &'static self,
        pid: u32,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::Result<T>, Late> {
        let left = self.left();
        if left.contains(&pid) {
            return Err(Late::Outstanding);
        }
        if left.len() >= MOST {
            return Err(Late::NotAsked);
        }
        drop(left);
        let (send, receive) = mpsc::sync_channel(1);
        let state = Arc::new(AtomicU8::new(UNDER_WAY));
        let of_worker = state.clone();
        let handed_over = hand_over(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // There is room for one; nobody receives it where it comes too late.
            let _ = send.send(outcome);
            if of_worker.swap(DONE, AcqRel) == LEFT {
                self.left().remove(&pid);
            }
        }));
        if !handed_over {
            return Err(Late::NotAsked);
        }
        if let Ok(outcome) = receive.recv_timeout(most) {
            return Ok(outcome);
        }
        self.left().insert(pid);
        if state.swap(LEFT, AcqRel) == DONE {
            // Just in time after all.
            self.left().remove(&pid);
            return receive.try_recv().map_err(|_| Late::Unanswered(most));
        }
        WORKER.take();
        Err(Late::Unanswered(most))
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Nobody panics while holding it.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file of a process, or of the [`HOST`], gives [`SOON`], and may fail besides.
pub fn soon<T: Send + 'static>(pid: u32, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    FILES.within(pid, SOON, work)?
}

/// Has this thread's worker do it, a new one where there is none; false where none can be begun.
fn hand_over(work: Work) -> bool {
    WORKER.with_borrow_mut(|worker| {
        if worker.is_none() {
            let (send, receive) = mpsc::channel::<Work>();
            let turn = move || receive.into_iter().for_each(|work| work());
            let begun = thread::Builder::new().name("reads".to_owned()).spawn(turn);
            *worker = begun.is_ok().then_some(send);
        }
        worker.as_ref().is_some_and(|worker| worker.send(work).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    /// Other tests read meanwhile.
    static OWN: Readers = Readers::new();

    #[test]
    fn what_is_answered_is_given_by_one_thread() {
        let here = thread::current().id();
        let first = OWN.within(1, LONG, || thread::current().id()).unwrap();
        assert_ne!(first, here);
        assert_eq!(OWN.within(2, LONG, || thread::current().id()), Ok(first));
        let missing = OWN
            .within(1, LONG, || std::fs::read("/nonexistent"))
            .unwrap()
            .unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_panic_is_an_error_and_no_end() {
        let failed = OWN.within(3, LONG, || -> u8 { panic!("not a number") });
        assert_eq!(failed, Err(Late::Panicked));
        assert_eq!(OWN.within(3, LONG, || 1), Ok(1));
    }

    /// Reads of a pipe that nobody writes to.
    #[test]
    fn what_never_answers_is_left_behind_once_a_process_and_so_many_at_most() {
        static STUCK: Readers = Readers::new();
        let before = late();
        let mut writers = Vec::new();
        let mut ask = |pid: u32, most: Duration| {
            let (mut reader, writer) = io::pipe().unwrap();
            writers.push(writer);
            STUCK.within(pid, most, move || reader.read(&mut [0]).unwrap())
        };
        assert_eq!(ask(1, SHORT), Err(Late::Unanswered(SHORT)));
        assert_eq!(ask(1, LONG), Err(Late::Outstanding));
        // The next one is answered all the same.
        assert_eq!(STUCK.within(2, LONG, || 7), Ok(7));
        for pid in 2..=MOST as u32 {
            assert_eq!(ask(pid, Duration::ZERO), Err(Late::Unanswered(Duration::ZERO)));
        }
        assert_eq!(ask(MOST as u32 + 1, LONG), Err(Late::NotAsked));
        assert!(late() - before > MOST as u64);
        drop(writers);
        // They end as what they read does.
        while !STUCK.left().is_empty() {
            thread::sleep(SHORT);
        }
        assert_eq!(STUCK.within(1, LONG, || 8), Ok(8));
    }
}
