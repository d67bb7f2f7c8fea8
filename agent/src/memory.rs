//! The only place that reads a target's memory from user space. It is only ever read.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// A process' memory, through /proc/PID/mem. Once opened it stays that process': a reused pid is not read by mistake.
#[derive(Debug)]
pub struct Memory {
    file: File,
}

impl Memory {
    /// Opens the memory of a process; needs root or SYS_PTRACE.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self {
            file: File::open(format!("/proc/{pid}/mem"))?,
        })
    }

    /// Fills `bytes` from `address`. A process that ended reads as zero bytes, which is an error here.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, address)
    }

    /// A little-endian unsigned integer of `size` bytes, 1 to 8.
    pub fn unsigned(&self, address: u64, size: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let wanted = bytes.get_mut(..size as usize).ok_or(io::ErrorKind::InvalidInput)?;
        self.read(address, wanted)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A pointer or uintptr.
    pub fn word(&self, address: u64) -> io::Result<u64> {
        self.unsigned(address, 8)
    }

    /// `count` 64-bit words.
    pub fn words(&self, address: u64, count: usize) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; count * 8];
        self.read(address, &mut bytes)?;
        let word = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        Ok(bytes.chunks_exact(8).map(word).collect())
    }
}
