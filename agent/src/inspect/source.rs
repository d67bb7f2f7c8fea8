//! Where an executable's bytes come from: memory, or a file of which only the parts that are asked for are read.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use object::read::{ReadCache, ReadRef};

/// Bytes of an executable. Not a mapping of it: whoever may write the file could end the agent by cutting it short.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    File(&'a Parts),
}

/// The parts of a file that were read.
#[derive(Debug)]
pub(crate) struct Parts {
    file: File,
    parts: ReadCache<File>,
    left: Cell<u64>,
}

/// Most that is read of one file, bytes: its headers may claim the same parts many times over.
const MAX_READ: u64 = 512 << 20;

impl Parts {
    pub(crate) fn of(file: File) -> io::Result<Self> {
        Ok(Self {
            parts: ReadCache::new(file.try_clone()?),
            file,
            left: Cell::new(MAX_READ),
        })
    }

    fn spend(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl Source<'_> {
    /// A copy of `size` bytes at `offset`; None when the file ends before.
    pub(crate) fn read_owned(self, offset: u64, size: u64) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes.read_bytes_at(offset, size).ok()?.to_vec()),
            Self::File(parts) => {
                parts.spend(size).ok()?;
                if offset.checked_add(size)? > self.len().ok()? {
                    return None;
                }
                let mut bytes = vec![0; usize::try_from(size).ok()?];
                parts.file.read_exact_at(&mut bytes, offset).ok()?;
                Some(bytes)
            }
        }
    }
}

impl<'a> ReadRef<'a> for Source<'a> {
    fn len(self) -> Result<u64, ()> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(parts) => (&parts.parts).len(),
        }
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        match self {
            Self::Bytes(bytes) => bytes.read_bytes_at(offset, size),
            Self::File(parts) => {
                parts.spend(size)?;
                (&parts.parts).read_bytes_at(offset, size)
            }
        }
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        match self {
            Self::Bytes(bytes) => bytes.read_bytes_at_until(range, delimiter),
            Self::File(parts) => (&parts.parts).read_bytes_at_until(range, delimiter),
        }
    }
}
