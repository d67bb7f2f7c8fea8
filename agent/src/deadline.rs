//! What a process or a file system may never answer, such as a read of a page that nobody fills or a file on a server that is gone:
//! done in a thread of its own, and waited for no longer than a deadline.

use std::{
    any::Any,
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

/// Threads that nobody waits for any more. Nothing is asked while there are so many.
const MOST: u64 = 32;

static LEFT_BEHIND: AtomicU64 = AtomicU64::new(0);
static LATE: AtomicU64 = AtomicU64::new(0);

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

/// What `work` gives, or that it takes longer than `most`: then it goes on alone, and what it gives is dropped. A panic of it is the
/// caller's.
pub fn within<T: Send + 'static>(most: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Late> {
    if LEFT_BEHIND.load(Relaxed) >= MOST {
        LATE.fetch_add(1, Relaxed);
        return Err(Late::NotAsked);
    }
    let (send, receive) = mpsc::sync_channel::<Result<T, Box<dyn Any + Send>>>(1);
    let state = Arc::new(AtomicU8::new(UNDER_WAY));
    let of_worker = state.clone();
    hand_over(Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // There is room for one; nobody receives it where it comes too late.
        let _ = send.send(outcome);
        if of_worker.swap(DONE, AcqRel) == LEFT {
            LEFT_BEHIND.fetch_sub(1, Relaxed);
        }
    }));
    let mut outcome = receive.recv_timeout(most).ok();
    if outcome.is_none() {
        LEFT_BEHIND.fetch_add(1, Relaxed);
        if state.swap(LEFT, AcqRel) == DONE {
            // Just in time after all.
            LEFT_BEHIND.fetch_sub(1, Relaxed);
            outcome = receive.try_recv().ok();
        } else {
            WORKER.take();
        }
    }
    match outcome {
        Some(Ok(value)) => Ok(value),
        Some(Err(panic)) => resume_unwind(panic),
        None => {
            LATE.fetch_add(1, Relaxed);
            Err(Late::Unanswered(most))
        }
    }
}

/// [`within`] [`SOON`], of what may fail besides.
pub fn soon<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    within(SOON, work)?
}

/// Has this thread's worker do it, a new one where there is none; this thread itself, where none can be begun.
fn hand_over(work: Work) {
    let mut work = Some(work);
    WORKER.with_borrow_mut(|worker| {
        if worker.is_none() {
            let (send, receive) = mpsc::channel::<Work>();
            let turn = move || receive.into_iter().for_each(|work| work());
            let begun = thread::Builder::new().name("reads".to_owned()).spawn(turn);
            *worker = begun.is_ok().then_some(send);
        }
        if let (Some(worker), Some(todo)) = (worker.as_ref(), work.take()) {
            work = worker.send(todo).err().map(|refused| refused.0);
        }
    });
    if let Some(work) = work {
        work();
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, time::Instant};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn what_is_answered_is_given_by_one_thread() {
        let here = thread::current().id();
        let first = within(LONG, || thread::current().id()).unwrap();
        assert_ne!(first, here);
        assert_eq!(within(LONG, || thread::current().id()), Ok(first));
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
            within(most, move || reader.read(&mut [0]).unwrap())
        };
        assert_eq!(ask(SHORT), Err(Late::Unanswered(SHORT)));
        // The next one is answered all the same.
        assert_eq!(within(LONG, || 7), Ok(7));
        for _ in 1..MOST {
            assert_eq!(ask(SHORT), Err(Late::Unanswered(SHORT)));
        }
        assert_eq!(ask(LONG), Err(Late::NotAsked), "nobody is asked any more");
        assert!(begin.elapsed() < LONG);
        assert!(late() - before > MOST);
        drop(writers);
        while LEFT_BEHIND.load(Relaxed) > 0 {
            thread::sleep(SHORT);
        }
        assert_eq!(within(LONG, || 8), Ok(8));
    }

    #[test]
    #[should_panic(expected = "not a number")]
    fn a_panic_is_the_callers() {
        let _ = within(LONG, || -> u8 { panic!("not a number") });
    }
}
