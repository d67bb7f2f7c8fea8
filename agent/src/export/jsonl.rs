//! OTLP as JSON lines: a request a line, in OTLP's JSON encoding; rotated by size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use log::{error, info};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    ExportError, FilesConfig, Outgoing, encode,
    stats::{Cause, ExportStats},
};

/// Rotated files kept besides the one that is written: .1 is the newest.
const KEPT: u32 = 4;

/// Writes traces.jsonl and metrics.jsonl.
pub(super) struct Writer {
    traces: Rotating,
    metrics: Rotating,
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
            stats,
        })
    }

    /// The files that are written.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        vec![self.traces.path.clone(), self.metrics.path.clone()]
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Arc<Outgoing>>) {
        while let Some(batch) = queue.blocking_recv() {
            for (request, items) in encode::trace_requests(&batch) {
                self.traces.deliver(&request, items, &self.stats);
            }
            for (request, items) in encode::metric_requests(&batch) {
                self.metrics.deliver(&request, items, &self.stats);
            }
        }
    }
}

struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// The last write failed, and that was said.
    failed: bool,
}

impl Rotating {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
            rotate(path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: create(path)?,
            size: 0,
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
                    info!("{} is written again", self.path.display());
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
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            rotate(&self.path)?;
            self.file = create(&self.path)?;
            self.size = 0;
        }
        if self.failed {
            // A full disk may have taken half a line.
            self.file.set_len(self.size)?;
            self.file.seek(SeekFrom::Start(self.size))?;
        }
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).open(path)
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

/// traces.jsonl.3 → .4, …, traces.jsonl → .1.
fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    for number in (1..KEPT).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
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
