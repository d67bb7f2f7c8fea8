//! OTLP as JSON lines: a request a line, in OTLP's JSON encoding; rotated by size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use log::{error, info};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    ExportError, FilesConfig, encode,
    queue::Queued,
    stats::{Cause, ExportStats},
};

/// Rotated files kept besides the one that is written: .1 is the newest.
const KEPT: u32 = 4;

/// Writes traces.jsonl, metrics.jsonl and logs.jsonl.
pub(super) struct Writer {
    traces: Rotating,
    metrics: Rotating,
    logs: Rotating,
    stats: Arc<ExportStats>,
}

impl Writer {
    /// Makes the directory, and begins new files; what an earlier run left is rotated away.
    pub(super) fn open(config: &FilesConfig, stats: Arc<ExportStats>) -> Result<Self, ExportError> {
        let open = |name: &str| {
            let path = config.directory.join(name);
            Rotating::open(&path, config.rotate).map_err(|source| ExportError::Files { path, source })
        };
        fs::create_dir_all(&config.directory).map_err(|source| ExportError::Files {
            path: config.directory.clone(),
            source,
        })?;
        Ok(Self {
            traces: open("traces.jsonl")?,
            metrics: open("metrics.jsonl")?,
            logs: open("logs.jsonl")?,
            stats,
        })
    }

    /// The files that are written.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        [&self.traces, &self.metrics, &self.logs]
            .map(|file| file.path.clone())
            .into()
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(queued) = queue.blocking_recv() {
            let batch = &queued.outgoing;
            for (request, items) in encode::trace_requests(batch) {
                self.traces.deliver(&request, items, &self.stats);
            }
            for (request, items) in encode::metric_requests(batch) {
                self.metrics.deliver(&request, items, &self.stats);
            }
            for (request, items) in encode::log_requests(batch) {
                self.logs.deliver(&request, items, &self.stats);
            }
        }
    }
}

struct Rotating {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in it.
    size: u64,
    limit: u64,
    /// The last write failed, and that was said.
    failed: bool,
}

// By hand: docs/design/export.md says what the crates that rotate files do not keep to.
impl Rotating {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0) {
            shift(path)?;
        }
        let (file, size) = append(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            limit,
            failed: false,
        })
    }

    /// Writes a request, or counts what is lost; says once when it cannot, and once when it can again.
    fn deliver(&mut self, request: &impl Serialize, items: u64, stats: &ExportStats) {
        match self.write(request) {
            Ok(()) => {
                stats.sent(items);
                if std::mem::replace(&mut self.failed, false) {
                    info!("{} can be written again", self.path.display());
                }
            }
            Err(cause) => {
                stats.dropped(items, Cause::WriteError);
                if !std::mem::replace(&mut self.failed, true) {
                    error!("cannot write {}: {cause}; counting what is lost", self.path.display());
                }
            }
        }
    }

    /// Writes a line; of one that failed before it nothing stays.
    fn write(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut message = serde_json::to_value(message)?;
        strip_nulls(&mut message);
        let mut line = serde_json::to_vec(&message)?;
        line.push(b'\n');
        self.follow()?;
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            shift(&self.path)?;
            (self.file, self.size) = append(&self.path)?;
        }
        if self.failed {
            // A full disk may have taken half a line.
            self.file.set_len(self.size)?;
        }
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// Begins a new file where the one that is written was removed or replaced, its directory with it or not: what is written
    /// into a file without a name is lost, and no limit is ever kept.
    fn follow(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                // Somebody may have emptied it.
                self.size = self.size.min(own.len());
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(directory) = self.path.parent() {
                    fs::create_dir_all(directory)?;
                }
            }
            Err(error) => return Err(error),
        }
        (self.file, self.size) = append(&self.path)?;
        info!("{} was removed or replaced: starting a new file", self.path.display());
        Ok(())
    }
}

/// The file, which what is written is added to, and its size. What is no file, such as a pipe without a reader, is refused at once.
fn append(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok((file, meta.len()))
}

/// An absent field is written as null by the messages' own serializer, which receivers do not take for a number.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// traces.jsonl.3 → .4, …, traces.jsonl → .1; no further than to the first number that is free: a try that failed halfway left
/// one, and the next moves no old file again.
fn shift(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let free = (1..KEPT).find(|number| fs::symlink_metadata(numbered(*number)).is_err());
    for number in (1..free.unwrap_or(KEPT)).rev() {
        rename(&numbered(number), &numbered(number + 1))?;
    }
    rename(path, &numbered(1))
}

/// Moves a file; one that somebody removed meanwhile is gone.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rotate_by_size_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let mut file = Rotating::open(&path, 10).unwrap();
        for line in 0..8 {
            file.write(&format!("line {line}")).unwrap();
        }
        let read = |suffix: &str| fs::read_to_string(format!("{}{suffix}", path.display())).unwrap_or_default();
        assert_eq!(
            (read(""), read(".1"), read(".4")),
            ("\"line 7\"\n".into(), "\"line 6\"\n".into(), "\"line 3\"\n".into())
        );
        assert_eq!(read(".5"), "");
        drop(file);
        Rotating::open(&path, 10).unwrap();
        assert_eq!(
            (read(""), read(".1")),
            (String::new(), "\"line 7\"\n".into()),
            "a new run keeps the last one's file"
        );
    }

    /// Lines of 9 bytes into files of 20, and what is done to them after `after` lines; what is there then, in order, and what was
    /// counted: sent, lost.
    fn written(after: usize, meddle: impl Fn(&Path)) -> (Vec<String>, [u64; 2]) {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("out");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("x.jsonl");
        let (mut file, stats) = (Rotating::open(&path, 20).unwrap(), ExportStats::default());
        for line in 0..8 {
            if line == after {
                meddle(&path);
            }
            file.deliver(&format!("line {line}"), 1, &stats);
        }
        let names = [".4", ".3", ".2", ".1", ""].map(|suffix| format!("{}{suffix}", path.display()));
        let texts = names.map(|name| fs::read_to_string(name).unwrap_or_default());
        let lines = texts.concat().lines().map(|line| line.replace(['"'], "")).collect();
        (lines, [stats.total_sent(), stats.dropped_by(Cause::WriteError)])
    }

    #[test]
    fn a_file_that_is_removed_is_begun_again_and_older_ones_stay() {
        let names = |numbers: &[usize]| -> Vec<String> { numbers.iter().map(|n| format!("line {n}")).collect() };
        let remove = |path: &Path| fs::remove_file(path).unwrap();
        // Lines 0, 1 and 2, 3 stand in files of their own, 4 was in the one that is removed.
        assert_eq!(written(5, remove), (names(&[0, 1, 2, 3, 5, 6, 7]), [8, 0]));
        let directory = |path: &Path| fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(written(5, directory), (names(&[5, 6, 7]), [8, 0]));
        let replace = |path: &Path| {
            fs::rename(path, path.with_extension("elsewhere")).unwrap();
            fs::write(path, "line x\n").unwrap();
        };
        let mut expected = names(&[0, 1, 2, 3, 5, 6, 7]);
        expected.insert(4, "line x".to_owned());
        assert_eq!(written(5, replace), (expected, [8, 0]));
        let empty = |path: &Path| drop(File::create(path).unwrap());
        assert_eq!(written(5, empty), (names(&[0, 1, 2, 3, 5, 6, 7]), [8, 0]));
    }

    #[test]
    fn tries_that_fail_move_no_old_file_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let numbered = |number: u32| directory.path().join(format!("x.jsonl.{number}"));
        for number in 1..=2 {
            fs::write(numbered(number), number.to_string()).unwrap();
        }
        for _ in 0..5 {
            shift(&path).unwrap();
        }
        let there = |number: u32| fs::read_to_string(numbered(number)).ok();
        assert_eq!(
            [there(1), there(2), there(3), there(4)],
            [None, Some("1".into()), Some("2".into()), None]
        );
    }

    #[test]
    fn a_pipe_without_a_reader_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(Rotating::open(&path, 20).is_err());
    }

    #[test]
    fn of_a_line_that_fails_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let mut file = Rotating::open(&path, 1 << 20).unwrap();
        let stats = ExportStats::default();
        file.deliver(&"whole", 1, &stats);
        // A disk that fills up: it takes half a line, and then none.
        let mut good = std::mem::replace(&mut file.file, File::open(&path).unwrap());
        good.write_all(b"\"lo").unwrap();
        file.deliver(&"lost", 2, &stats);
        file.file = good;
        file.deliver(&"whole again", 3, &stats);
        assert_eq!((stats.total_sent(), stats.dropped_by(Cause::WriteError)), (4, 2));
        assert_eq!(fs::read_to_string(&path).unwrap(), "\"whole\"\n\"whole again\"\n");
    }
}
