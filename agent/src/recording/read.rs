use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{Described, END, EVENT, End, FRAMES, Frames, LONGEST, MAGIC, Preface, RecordingError, TARGET, VERSION};

/// A record of a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// Bytes of the ring buffer.
    Event(&'a [u8]),
    Target(Described),
    Frames(Frames),
    End(End),
}

/// Reads a recording, from a file or from memory.
pub struct Reader<R> {
    path: PathBuf,
    from: R,
    pub preface: Preface,
    offset: u64,
    buffer: Vec<u8>,
}

impl Reader<BufReader<File>> {
    /// Opens a recording and reads what stands before the records.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(|source| RecordingError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::new(BufReader::new(file), path)
    }
}

impl<R: Read> Reader<R> {
    /// Reads what stands before the records; `path` is for messages.
    pub fn new(mut from: R, path: &Path) -> Result<Self, RecordingError> {
        let path = path.to_owned();
        let mut head = [0; 16];
        if let Err(source) = from.read_exact(&mut head) {
            return Err(match source.kind() {
                io::ErrorKind::UnexpectedEof => RecordingError::NotOurs { path },
                _ => RecordingError::Read { path, source },
            });
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if &head[..8] != MAGIC {
            return Err(RecordingError::NotOurs { path });
        }
        let (version, length) = (word(8), word(12));
        if version != VERSION {
            return Err(RecordingError::Version { path, found: version });
        }
        let mut reader = Self {
            path,
            from,
            preface: Preface {
                agent: String::new(),
                kernel: String::new(),
                mono: 0,
                wall: 0,
            },
            offset: 16,
            buffer: Vec::new(),
        };
        reader.fill(length)?;
        reader.preface = reader.json()?;
        Ok(reader)
    }

    /// The next record; None where the file ends, whether in order ([`Record::End`] came before) or not.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, RecordingError> {
        let mut head = [0; 8];
        let read = self.from.read(&mut head[..1]).map_err(|source| self.broken(source))?;
        if read == 0 {
            return Ok(None);
        }
        self.from
            .read_exact(&mut head[1..])
            .map_err(|source| self.broken(source))?;
        self.offset += 8;
        let [a, b, c, d, e, f, g, h] = head;
        let (length, kind) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        self.fill(length)?;
        Ok(Some(match kind {
            EVENT => Record::Event(&self.buffer),
            TARGET => Record::Target(self.json()?),
            FRAMES => Record::Frames(self.json()?),
            END => Record::End(self.json()?),
            _ => return Err(self.damaged(format!("unknown kind of record {kind}"))),
        }))
    }

    fn fill(&mut self, length: u32) -> Result<(), RecordingError> {
        if length > LONGEST {
            return Err(self.damaged(format!("a record of {length} bytes")));
        }
        // Memory grows with what is there, not with what its length says.
        self.buffer.clear();
        let outcome = self.from.by_ref().take(length.into()).read_to_end(&mut self.buffer);
        let read = outcome.map_err(|source| self.broken(source))?;
        if read < length as usize {
            return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset += u64::from(length);
        Ok(())
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, RecordingError> {
        serde_json::from_slice(&self.buffer).map_err(|error| self.damaged(error.to_string()))
    }

    fn broken(&self, source: io::Error) -> RecordingError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends within a record".to_owned()),
            _ => RecordingError::Read {
                path: self.path.clone(),
                source,
            },
        }
    }

    fn damaged(&self, what: String) -> RecordingError {
        RecordingError::Damaged {
            path: self.path.clone(),
            offset: self.offset,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[(u32, &[u8])]) -> Vec<u8> {
        let preface = br#"{"agent":"0","kernel":"6","mono":1,"wall":2}"#;
        let mut bytes = [
            &MAGIC[..],
            &VERSION.to_le_bytes(),
            &(preface.len() as u32).to_le_bytes(),
            preface,
        ]
        .concat();
        for (kind, record) in records {
            bytes.extend((record.len() as u32).to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(*record);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<usize, String> {
        let mut reader = Reader::new(bytes, Path::new("x.rec")).map_err(|error| error.to_string())?;
        let mut count = 0;
        while reader.read().map_err(|error| error.to_string())?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn what_is_no_recording_or_is_damaged_is_said_with_its_place() {
        let end = br#"{"events":1,"lost":0}"#;
        let good = file(&[(EVENT, b"abc"), (END, end)]);
        assert_eq!(read(&good), Ok(2));
        let mut newer = good.clone();
        newer[8] = 9;
        let cut = &good[..good.len() - 1];
        let cases: [(&[u8], &str); 6] = [
            (b"", "x.rec is not a recording of whywait"),
            (b"{\"resourceSpans\": []}", "x.rec is not a recording of whywait"),
            (
                &newer,
                "x.rec is a recording of version 9, this whywait reads version 3: use the whywait that wrote it",
            ),
            (cut, "x.rec is damaged at byte 79: it ends within a record"),
            (
                &file(&[(7, b"")]),
                "x.rec is damaged at byte 68: unknown kind of record 7",
            ),
            (
                &[&file(&[])[..], &u32::MAX.to_le_bytes(), &EVENT.to_le_bytes()].concat(),
                "x.rec is damaged at byte 68: a record of 4294967295 bytes",
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes), Err(expected.to_owned()));
        }
    }
}
