use std::{
    collections::{BTreeSet, HashSet},
    fs::{File, Metadata},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{Described, END, EVENT, End, FRAMES, Frames, MAGIC, Preface, RecordingError, TARGET, VERSION, to_json};
use crate::{
    aside::{Aside, Failure},
    clock::Anchor,
    deadline,
    intake::Event,
    signals::{self, State, events::Addresses},
    target::Target,
};

/// Bytes that may wait for a slow disk.
const ROOM: usize = 4 << 20;
/// Bytes that are handed on together.
const BATCH: usize = 32 << 10;

/// Writes a recording, in a thread of its own: a disk that stands still delays nothing, and what there is no room for is counted. What
/// cannot be written ends it, which is said by [`Self::failed`] or [`Self::finish`].
pub struct Recorder {
    path: PathBuf,
    out: Aside,
    described: HashSet<u32>,
    /// Addresses that were told, by target id: of functions that goroutines were started with, and of places in the code.
    starts: HashSet<(u32, u64)>,
    places: HashSet<(u32, u64)>,
    /// Records of events that were not handed on yet, and how many they are.
    pending: Vec<u8>,
    held: u64,
    /// Which file it is, by device and inode; None where `path` is for messages only.
    file: Option<(u64, u64)>,
    /// Events that were handed on, and those that there was no room for.
    events: u64,
    refused: u64,
    failed: Option<io::Error>,
}

/// A recording that was written.
#[derive(Debug)]
pub struct Finished {
    pub path: PathBuf,
    /// Events in it.
    pub events: u64,
    /// Events that are not, as it could not be written as fast.
    pub lost: u64,
}

impl Recorder {
    /// Begins a recording in a new file.
    pub fn create(path: &Path) -> Result<Self, RecordingError> {
        let begin = || {
            let file = File::create_new(path)?;
            let of = identity(&file.metadata()?);
            Ok(Self {
                file: Some(of),
                ..Self::begin(file, path)?
            })
        };
        begin().map_err(|source| RecordingError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Begins a recording; `path` is for messages.
    fn begin(mut file: impl Write + Send + 'static, path: &Path) -> io::Result<Self> {
        let (mono, wall) = Anchor::take().parts();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let preface = Preface {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel.trim().to_owned(),
            mono,
            wall,
        };
        let preface = serde_json::to_vec(&preface)?;
        let head = [
            &MAGIC[..],
            &VERSION.to_le_bytes(),
            &(preface.len() as u32).to_le_bytes(),
            &preface,
        ];
        file.write_all(&head.concat())?;
        Ok(Self {
            path: path.to_owned(),
            out: Aside::begin("recording", file, ROOM, Failure::Ends)?,
            described: HashSet::new(),
            starts: HashSet::new(),
            places: HashSet::new(),
            pending: Vec::new(),
            held: 0,
            file: None,
            events: 0,
            refused: 0,
            failed: None,
        })
    }

    /// An event of a target, after what its spans need to know.
    pub fn event(&mut self, event: &Event, target: &Target, state: &State) {
        if self.described.insert(target.id) {
            self.json(TARGET, &describe(target, state));
        }
        let Addresses { starts, places } = signals::addresses(event);
        self.names(target, starts, places);
        self.raw(event.bytes());
    }

    /// What functions that goroutines were started with, and places in the code, are called; each once.
    fn names(&mut self, target: &Target, starts: Vec<u64>, places: Vec<u64>) {
        let target_id = target.id;
        let new = |told: &HashSet<(u32, u64)>, addresses: Vec<u64>| -> BTreeSet<u64> {
            let unknown = |address: &u64| *address != 0 && !told.contains(&(target_id, *address));
            addresses.into_iter().filter(unknown).collect()
        };
        let starts = new(&self.starts, starts).into_iter();
        let starts: Vec<_> = starts
            .filter_map(|start| Some((start, target.answered_start(start).ok()?)))
            .collect();
        // The function itself may be called by another name than what was started with it.
        let places = places.into_iter().chain(starts.iter().map(|(_, start)| *start));
        let places = new(&self.places, places.collect()).into_iter();
        let frames: Vec<_> = places
            .filter_map(|place| Some((place, target.go_frame(place)?)))
            .collect();
        if starts.is_empty() && frames.is_empty() {
            return;
        }
        self.starts.extend(starts.iter().map(|(start, _)| (target_id, *start)));
        self.places.extend(frames.iter().map(|(place, _)| (target_id, *place)));
        self.json(
            FRAMES,
            &Frames {
                target_id,
                starts,
                frames,
            },
        );
    }

    /// Forgets what was told of a target, which ended.
    pub fn forget(&mut self, target_id: u32) {
        self.described.remove(&target_id);
        for told in [&mut self.starts, &mut self.places] {
            told.retain(|(of, _)| *of != target_id);
        }
    }

    /// A record of the ring buffer that belongs to no target, or is no event at all.
    pub fn raw(&mut self, bytes: &[u8]) {
        record(&mut self.pending, EVENT, bytes);
        self.held += 1;
        if self.pending.len() >= BATCH {
            self.hand_on();
        }
    }

    /// Hands on what is held back; to be called when there are no more events for the moment.
    pub fn hand_on(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held == 0 {
            return;
        }
        if self.out.offer(std::mem::take(&mut self.pending)) {
            self.events += held;
        } else {
            self.refused += held;
        }
    }

    /// How many parts could not be written since the last call, and why the last one could not: the recording ends there.
    pub fn failed(&mut self) -> Option<(u64, String)> {
        let (count, error) = self.out.failed()?;
        let said = error.to_string();
        self.failed = Some(error);
        Some((count, said))
    }

    /// Ends the recording, waiting for the disk no longer than `most`. `lost` are events that
    /// never came: those that the kernel side lost, and of targets whose last figures had left.
    pub fn finish(mut self, lost: u64, most: Duration) -> Result<Finished, RecordingError> {
        self.hand_on();
        let (events, refused) = (self.events, self.refused);
        let end = End {
            events,
            lost: lost + refused,
        };
        self.json(END, &end);
        let in_time = self.out.finish(most);
        let late = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not all of it was written within {most:?}"),
            )
        };
        let failed = self.failed.take().or_else(|| Some(self.out.failed()?.1));
        let failed = failed.or_else(|| (!in_time).then(late));
        match failed.or_else(|| self.moved()) {
            None => Ok(Finished {
                path: self.path,
                events,
                lost: refused,
            }),
            Some(source) => Err(RecordingError::Write {
                path: self.path,
                source,
            }),
        }
    }

    /// What was written is no longer where it was begun.
    fn moved(&self) -> Option<io::Error> {
        let (begun, path) = (self.file?, self.path.clone());
        match deadline::soon(deadline::HOST, move || std::fs::metadata(path)) {
            Ok(now) if identity(&now) == begun => None,
            Ok(_) => Some(io::Error::other("another file took its place meanwhile")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(io::Error::other("it was removed meanwhile")),
            Err(error) => Some(error),
        }
    }

    /// What events need; little, and never left out. It goes before those that are held back.
    fn json(&mut self, kind: u32, what: &impl Serialize) {
        match serde_json::to_vec(what) {
            Ok(json) => {
                let mut bytes = Vec::new();
                record(&mut bytes, kind, &json);
                self.out.force(bytes);
            }
            Err(error) => self.failed = Some(error.into()),
        }
    }
}

/// Device and inode.
fn identity(of: &Metadata) -> (u64, u64) {
    (of.dev(), of.ino())
}

/// Adds a record to bytes.
pub(super) fn record(to: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    to.extend((bytes.len() as u32).to_le_bytes());
    to.extend(kind.to_le_bytes());
    to.extend(bytes);
}

fn describe(target: &Target, state: &State) -> Described {
    Described {
        target_id: target.id,
        pid: target.process.pid,
        resource: to_json(&target.resource),
        futures: target.futures.clone(),
        wait_reasons: state.wait_reasons.clone(),
        throttling: state
            .quotas
            .as_ref()
            .and_then(|quotas| quotas.throttling().map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Reader, Record};

    const LONG: Duration = Duration::from_secs(20);

    /// Writes events of 1000 bytes into a pipe that nobody reads before all were handed on. What was told; what is in it: events, and
    /// its end.
    fn recorded(events: u64) -> (Finished, u64, End) {
        let (reader, writer) = io::pipe().unwrap();
        let mut recorder = Recorder::begin(writer, Path::new("x.rec")).unwrap();
        for _ in 0..events {
            recorder.raw(&[7; 1000]);
        }
        recorder.hand_on();
        let read = std::thread::spawn(move || {
            let mut reader = Reader::new(reader, Path::new("x.rec")).unwrap();
            let (mut count, mut end) = (0, None);
            while let Some(record) = reader.read().unwrap() {
                match record {
                    Record::Event(bytes) => {
                        assert_eq!(bytes, [7; 1000]);
                        count += 1;
                    }
                    Record::End(found) => end = Some(found),
                    other => panic!("{other:?}"),
                }
            }
            (count, end.unwrap())
        });
        let finished = recorder.finish(3, LONG).unwrap();
        let (count, end) = read.join().unwrap();
        (finished, count, end)
    }

    #[test]
    fn what_a_disk_that_stands_still_does_not_take_is_counted() {
        let (finished, count, end) = recorded(100);
        assert_eq!((finished.events, finished.lost, count), (100, 0, 100));
        assert_eq!(end, End { events: 100, lost: 3 });
        // Nobody waited: what there is room for is there.
        let (finished, count, end) = recorded(20_000);
        assert!(finished.lost > 0 && finished.events > 4000, "{finished:?}");
        assert_eq!(finished.events + finished.lost, 20_000);
        assert_eq!(count, finished.events);
        assert_eq!((end.events, end.lost), (finished.events, finished.lost + 3));
    }

    #[test]
    fn a_disk_that_never_comes_back_is_not_waited_for() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut recorder = Recorder::begin(writer, Path::new("x.rec")).unwrap();
        for _ in 0..1000 {
            recorder.raw(&[7; 1000]);
        }
        let error = recorder.finish(0, Duration::from_millis(10)).unwrap_err();
        assert!(
            error.to_string().contains("x.rec: not all of it was written"),
            "{error}"
        );
    }

    #[test]
    fn a_full_disk_ends_it_and_is_told() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = Recorder::begin(full, Path::new("x.rec")).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let (reader, writer) = io::pipe().unwrap();
        let mut recorder = Recorder::begin(writer, Path::new("x.rec")).unwrap();
        drop(reader);
        recorder.raw(b"lost");
        let error = recorder.finish(0, LONG).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot write the recording x.rec: "),
            "{error}"
        );
    }

    #[test]
    fn a_recording_that_is_removed_or_replaced_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.rec");
        let ended = |meanwhile: &dyn Fn()| {
            let recorder = Recorder::create(&path).unwrap();
            meanwhile();
            recorder.finish(0, LONG).map(drop).map_err(|error| error.to_string())
        };
        let remove = || std::fs::remove_file(&path).unwrap();
        assert_eq!(ended(&|| ()), Ok(()));
        remove();
        assert!(ended(&remove).unwrap_err().ends_with("it was removed meanwhile"));
        let replace = || {
            remove();
            std::fs::write(&path, "other").unwrap();
        };
        assert!(
            ended(&replace)
                .unwrap_err()
                .ends_with("another file took its place meanwhile")
        );
    }
}
