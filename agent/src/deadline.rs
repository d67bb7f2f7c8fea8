//! What a process or a file system may never answer, such as a read of a page that nobody fills or a file on a server that is gone:
//! done in a thread of its own, and waited for no longer than a deadline.

use std::{
    cell::RefCell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
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
const MOST: u64 = 32;

/// Reads of processes' memory, and of files: the ones that hang take nothing from the others.
pub static MEMORY: Readers = Readers::new();
pub static FILES: Readers = Readers::new();

static LATE: AtomicU64 = AtomicU64::new(0);

/// What is read of one kind.
pub struct Readers {
    /// Threads that nobody waits for any more.
    left: AtomicU64,
}

/// There was no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    #[error("no answer within {0:?}")]
    Unanswered(Duration),
    #[error("not asked while {MOST} others are unanswered")]
    NotAsked,
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
            left: AtomicU64::new(0),
        }
    }

    /// What `work` gives, or that it takes longer than `most`: then it goes on alone, and what it gives is dropped. A panic of it is the
    /// caller's.
    pub fn within<T: Send + 'static>(
        &'static self,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Late> {
        let outcome = self.ask(most, work);
        if outcome.is_err() {
            note_late();
        }
        match outcome? {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn ask<T: Send + 'static>(
        &'static self,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::Result<T>, Late> {
        if self.left.load(Relaxed) >= MOST {
            return Err(Late::NotAsked);
        }
        let (send, receive) = mpsc::sync_channel(1);
        let state = Arc::new(AtomicU8::new(UNDER_WAY));
        let of_worker = state.clone();
        let handed_over = hand_over(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // There is room for one; nobody receives it where it comes too late.
            let _ = send.send(outcome);
            if of_worker.swap(DONE, AcqRel) == LEFT {
                self.left.fetch_sub(1, Relaxed);
            }
        }));
        if !handed_over {
            return Err(Late::NotAsked);
        }
        if let Ok(outcome) = receive.recv_timeout(most) {
            return Ok(outcome);
        }
        self.left.fetch_add(1, Relaxed);
        if state.swap(LEFT, AcqRel) == DONE {
            // Just in time after all.
            self.left.fetch_sub(1, Relaxed);
            return receive.try_recv().map_err(|_| Late::Unanswered(most));
        }
        WORKER.take();
        Err(Late::Unanswered(most))
    }
}

/// What a file gives [`SOON`], and may fail besides.
pub fn soon<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    FILES.within(SOON, work)?
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
    use std::{io::Read as _, time::Instant};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    /// Other tests read meanwhile.
    static OWN: Readers = Readers::new();

    #[test]
    fn what_is_answered_is_given_by_one_thread() {
        let here = thread::current().id();
        let first = OWN.within(LONG, || thread::current().id()).unwrap();
        assert_ne!(first, here);
        assert_eq!(OWN.within(LONG, || thread::current().id()), Ok(first));
        assert_eq!(soon(|| Ok(7)).unwrap(), 7);
        let missing = soon(|| std::fs::read("/nonexistent")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    /// Reads of a pipe that nobody writes to.
    #[test]
    fn what_never_answers_is_left_behind_and_so_many_at_most() {
        let (begin, before) = (Instant::now(), late());
        let mut writers = Vec::new();
        let mut ask = |most: Duration| {
            let (mut reader, writer) = io::pipe().unwrap();
            writers.push(writer);
            OWN.within(most, move || reader.read(&mut [0]).unwrap())
        };
        assert_eq!(ask(SHORT), Err(Late::Unanswered(SHORT)));
        // The next one is answered all the same.
        assert_eq!(OWN.within(LONG, || 7), Ok(7));
        for _ in 1..MOST {
            assert_eq!(ask(SHORT), Err(Late::Unanswered(SHORT)));
        }
        assert_eq!(ask(LONG), Err(Late::NotAsked), "nobody is asked any more");
        assert!(begin.elapsed() < LONG);
        assert!(late() - before > MOST);
        drop(writers);
        // They end as what they read does.
        while OWN.left.load(Relaxed) > 0 {
            thread::sleep(SHORT);
        }
        assert_eq!(OWN.within(LONG, || 8), Ok(8));
    }

    #[test]
    #[should_panic(expected = "not a number")]
    fn a_panic_is_the_callers() {
        let _ = OWN.within(LONG, || -> u8 { panic!("not a number") });
    }
}
