use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use log::warn;
use serde::Serialize;

use super::{Described, END, EVENT, End, FRAMES, Frames, MAGIC, Preface, RecordingError, TARGET, VERSION, to_json};
use crate::{clock::Anchor, inspect::Image, intake::Event, signals, target::Target};

/// Writes a recording. What it cannot write ends it, which is said once, and by [`Self::finish`].
pub struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    described: HashSet<u32>,
    /// Addresses that were told, by slot.
    told: HashSet<(u32, u64)>,
    events: u64,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins a recording in a new file.
    pub fn create(path: &Path) -> Result<Self, RecordingError> {
        let (mono, wall) = Anchor::take().parts();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let preface = Preface {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel.trim().to_owned(),
            mono,
            wall,
        };
        let begin = || {
            let mut file = BufWriter::new(File::create_new(path)?);
            let preface = serde_json::to_vec(&preface)?;
            file.write_all(MAGIC)?;
            file.write_all(&VERSION.to_le_bytes())?;
            file.write_all(&(preface.len() as u32).to_le_bytes())?;
            file.write_all(&preface)?;
            Ok(file)
        };
        let file = begin().map_err(|source| RecordingError::Write {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            described: HashSet::new(),
            told: HashSet::new(),
            events: 0,
            failed: None,
        })
    }

    /// An event of a target, after what its spans need to know.
    pub fn event(&mut self, event: &Event, target: &Target) {
        if self.described.insert(target.slot) {
            self.json(TARGET, &describe(target));
        }
        // Of a function that a goroutine was started with, what the goroutine is called by.
        let (starts, places) = match event {
            Event::GoWait(wait) => {
                let [first, second, third] = wait.wakers.map(|waker| waker.startpc);
                (
                    vec![wait.startpc, first, second, third],
                    vec![wait.gopc.saturating_sub(1)],
                )
            }
            Event::GoStop(stop) => (vec![stop.startpc, stop.late_startpc], signals::go::stw::places(stop)),
            Event::GoAssists(assists) => (assists.payers.iter().map(|payer| payer.startpc).collect(), Vec::new()),
            Event::Syscall(call) => (vec![call.startpc], Vec::new()),
            _ => (Vec::new(), Vec::new()),
        };
        let starts = starts.into_iter().map(|start| (start, target.go_start(start)));
        let places = places.into_iter().map(|place| (place, place));
        let new = starts.chain(places).filter(|(_, place)| *place != 0);
        let frames: Vec<_> = new
            .filter(|(address, _)| self.told.insert((target.slot, *address)))
            .filter_map(|(address, place)| Some((address, target.go_frame(place)?)))
            .collect();
        if !frames.is_empty() {
            let slot = target.slot;
            self.json(FRAMES, &Frames { slot, frames });
        }
        self.raw(event.bytes());
    }

    /// A record of the ring buffer that belongs to no target, or is no event at all.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.events += 1;
        self.record(EVENT, bytes);
    }

    /// Ends the recording: the file, and how many events are in it.
    pub fn finish(mut self, lost: u64) -> Result<(PathBuf, u64), RecordingError> {
        let events = self.events;
        self.json(END, &End { events, lost });
        let outcome = match self.failed.take() {
            Some(error) => Err(error),
            None => self.file.flush(),
        };
        match outcome {
            Ok(()) => Ok((self.path, events)),
            Err(source) => Err(RecordingError::Write {
                path: self.path,
                source,
            }),
        }
    }

    fn json(&mut self, kind: u32, what: &impl Serialize) {
        match serde_json::to_vec(what) {
            Ok(json) => self.record(kind, &json),
            Err(error) => self.fail(error.into()),
        }
    }

    fn record(&mut self, kind: u32, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let mut write = || {
            self.file.write_all(&(bytes.len() as u32).to_le_bytes())?;
            self.file.write_all(&kind.to_le_bytes())?;
            self.file.write_all(bytes)
        };
        if let Err(error) = write() {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: io::Error) {
        warn!("the recording {} ends here: {error}", self.path.display());
        self.failed = Some(error);
    }
}

fn describe(target: &Target) -> Described {
    let wait_reasons = match (target.image.as_deref(), &target.go) {
        (Some(Image::Go(_)), Some(go)) => go.runtime.wait_reasons.clone(),
        _ => Vec::new(),
    };
    Described {
        slot: target.slot,
        pid: target.process.pid,
        resource: to_json(&target.resource),
        futures: target.futures.clone(),
        wait_reasons,
        throttling: target
            .quotas
            .as_ref()
            .and_then(|quotas| quotas.throttling().map(str::to_owned)),
    }
}
