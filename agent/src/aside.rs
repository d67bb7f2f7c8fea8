//! Bytes that a thread of its own writes. What takes them may be slow or stand still, such as a paused terminal or a disk that
//! hangs: nothing waits for it, and what it does not take is refused and counted by who asked.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What a write that failed means for those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing: the next may succeed.
    Passes,
    /// The end: a part would be missing in the midst.
    Ends,
}

/// The front of the thread. Clones share it.
#[derive(Clone)]
pub struct Aside {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that may wait.
    room: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    /// Bytes that wait, those that are being written among them.
    bytes: usize,
    /// Nothing more is taken: [`Failure::Ends`].
    ended: bool,
    /// The thread ends when all is written.
    closed: bool,
    /// Writes that failed since somebody asked, and why the last one did.
    failed: u64,
    error: Option<io::Error>,
}

impl Aside {
    /// Begins a thread of that name; `room` bytes may wait for it.
    pub fn begin(name: &str, to: impl Write + Send + 'static, room: usize, failure: Failure) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            room,
        });
        let own = shared.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || own.write(to, failure))?;
        Ok(Self { shared })
    }

    /// Hands bytes on; false when there is no room for them. Those that are more than the room are taken when nothing waits.
    #[must_use]
    pub fn offer(&self, bytes: Vec<u8>) -> bool {
        let mut state = self.shared.lock();
        if state.ended {
            return false;
        }
        if state.bytes > 0 && state.bytes + bytes.len() > self.shared.room {
            return false;
        }
        self.shared.push(&mut state, bytes);
        true
    }

    /// Hands on what must not be refused, and is little.
    pub fn force(&self, bytes: Vec<u8>) {
        self.shared.push(&mut self.shared.lock(), bytes);
    }

    /// How many writes failed since the last call, and why the last one did.
    pub fn failed(&self) -> Option<(u64, io::Error)> {
        let mut state = self.shared.lock();
        let error = state.error.take()?;
        Some((std::mem::take(&mut state.failed), error))
    }

    /// Ends the thread when all is written, and waits for that no longer than `most`; whether all was.
    pub fn finish(&self, most: Duration) -> bool {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.changed.notify_all();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, most, |state| state.bytes > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.bytes == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, state: &mut State, bytes: Vec<u8>) {
        if !state.ended && !bytes.is_empty() {
            state.bytes += bytes.len();
            state.queue.push_back(bytes);
            self.changed.notify_all();
        }
    }

    /// The thread.
    fn write(&self, mut to: impl Write, failure: Failure) {
        let mut state = self.lock();
        loop {
            let Some(bytes) = state.queue.pop_front() else {
                if state.closed {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let outcome = to.write_all(&bytes).and_then(|()| to.flush());
            state = self.lock();
            state.bytes -= bytes.len();
            if let Err(error) = outcome {
                state.failed += 1;
                state.error = Some(error);
                if failure == Failure::Ends {
                    state.ended = true;
                    state.queue.clear();
                    state.bytes = 0;
                }
            }
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const ROOM: usize = 100;

    #[test]
    fn what_is_handed_on_is_written_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let aside = Aside::begin("test", writer, ROOM, Failure::Passes).unwrap();
        assert!(aside.offer(b"one ".to_vec()));
        aside.force(b"two".to_vec());
        assert!(aside.finish(LONG));
        let mut read = [0; 7];
        reader.read_exact(&mut read).unwrap();
        assert_eq!((&read, aside.failed().is_none()), (b"one two", true));
    }

    /// A pipe that nobody reads is full after 64 KiB.
    #[test]
    fn who_hands_on_does_not_wait_for_a_reader_that_stopped() {
        let (mut reader, writer) = io::pipe().unwrap();
        let aside = Aside::begin("test", writer, ROOM, Failure::Passes).unwrap();
        assert!(
            aside.offer(vec![b'x'; 1 << 20]),
            "more than the room, but nothing waits"
        );
        for _ in 0..1000 {
            assert!(!aside.offer(vec![b'y'; 10]));
        }
        assert!(!aside.finish(Duration::from_millis(1)), "it cannot have written all");
        let mut read = vec![0; 1 << 20];
        reader.read_exact(&mut read).unwrap();
        assert!(aside.finish(LONG));
        assert!(aside.failed().is_none());
    }

    #[test]
    fn failures_are_told_once_and_do_not_stop_it() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let aside = Aside::begin("test", full, ROOM, Failure::Passes).unwrap();
        for _ in 0..3 {
            aside.force(b"x".to_vec());
        }
        assert!(aside.finish(LONG));
        let (count, error) = aside.failed().unwrap();
        assert_eq!((count, error.kind()), (3, io::ErrorKind::StorageFull));
        assert!(aside.failed().is_none());
    }

    #[test]
    fn where_a_failure_is_the_end_nothing_follows_it() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let aside = Aside::begin("test", full, ROOM, Failure::Ends).unwrap();
        for _ in 0..3 {
            aside.force(b"x".to_vec());
        }
        assert!(aside.finish(LONG));
        assert_eq!(aside.failed().unwrap().0, 1);
    }
}
