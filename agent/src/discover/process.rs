//! One process as /proc shows it.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use procfs::{ProcError, process::MemoryMaps};

use crate::inspect::{self, ElfFacts, Image, InspectError};

/// Identity of a file's contents, as far as its inode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// A process, told apart from a later one of the same pid by its start time.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks after boot (proc(5), stat field 22).
    pub start: u64,
    /// The path its executable had; ends with " (deleted)" when the file was replaced or removed since.
    pub exe: PathBuf,
    /// The kernel's name of its main thread.
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("no process {0}")]
    NotFound(u32),
    #[error("process {pid}: no permission to read its {what}: run as root, or with the capability SYS_PTRACE")]
    NoPermission { pid: u32, what: &'static str },
    #[error("process {pid}: is a kernel thread")]
    KernelThread { pid: u32 },
    #[error("process {pid}: cannot read its {what}: {source}")]
    Io {
        pid: u32,
        what: &'static str,
        source: io::Error,
    },
    #[error("process {pid}: cannot read its {what}: {source}")]
    Proc {
        pid: u32,
        what: &'static str,
        source: ProcError,
    },
    #[error("process {pid} ended")]
    Ended { pid: u32 },
}

impl Process {
    /// Reads a process' identity.
    pub fn read(pid: u32) -> Result<Self, ProcessError> {
        let found = open(pid)?;
        let stat = found.stat().map_err(|source| proc_error(pid, "stat", source))?;
        let exe = match found.exe() {
            Ok(exe) => exe,
            // Kernel threads have no executable.
            Err(ProcError::NotFound(_)) if stat.ppid <= 2 => return Err(ProcessError::KernelThread { pid }),
            Err(source) => return Err(proc_error(pid, "exe", source)),
        };
        Ok(Self {
            pid,
            start: stat.starttime,
            exe,
            name: stat.comm,
        })
    }

    /// Every process there is now; those that end meanwhile, and kernel threads, are left out.
    pub fn all() -> Result<Vec<Self>, ProcessError> {
        let all = procfs::process::all_processes().map_err(|source| proc_error(0, "/proc", source))?;
        let own = std::process::id();
        Ok(all
            .flatten()
            .filter(|found| found.pid as u32 != own)
            .filter_map(|found| Self::read(found.pid as u32).ok())
            .collect())
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).is_ok_and(|now| now.start == self.start)
    }

    /// The executable's path through /proc, which holds even when the file was replaced.
    pub fn exe_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.pid))
    }

    /// CPU time used so far by all its threads, dead ones included, ns, by the scheduler's account. It is asked for many times
    /// a second: this is one system call, where /proc/PID/stat is opened, written and parsed, and goes by ticks.
    pub fn cpu_time(&self) -> Result<u64, ProcessError> {
        let read = || clock_gettime(clock_getcpuclockid(Pid::from_raw(self.pid as i32))?);
        let time = read().map_err(|errno| match errno {
            Errno::ESRCH | Errno::EINVAL => ProcessError::NotFound(self.pid),
            errno => ProcessError::Io {
                pid: self.pid,
                what: "CPU clock",
                source: errno.into(),
            },
        })?;
        Ok(Duration::from(time).as_nanos() as u64)
    }

    /// Whether the file at the executable's path is no longer the one that runs.
    pub fn is_replaced(&self) -> bool {
        self.exe.to_string_lossy().ends_with(" (deleted)")
    }

    /// Identity of the executable that runs.
    pub fn exe_id(&self) -> Result<FileId, ProcessError> {
        let meta = fs::metadata(self.exe_path()).map_err(|source| self.io("exe", source))?;
        Ok(FileId {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// What its executable is; the inner error is about the file's contents.
    pub fn inspect(&self) -> Result<Result<Option<Image>, InspectError>, ProcessError> {
        self.open_exe().map(|file| inspect::inspect_file(&file))
    }

    /// The file of its executable.
    pub fn open_exe(&self) -> Result<File, ProcessError> {
        File::open(self.exe_path()).map_err(|source| self.io("exe", source))
    }

    /// Where the executable's file offset 0 is mapped: the lowest mapping of the executable itself, and its file offset.
    pub fn mapped_at(&self) -> Result<(u64, u64), ProcessError> {
        let maps = maps(self.pid)?;
        let meta = fs::metadata(self.exe_path()).map_err(|source| self.io("exe", source))?;
        let lowest = maps
            .into_iter()
            .filter(|map| map.inode == meta.ino())
            .min_by_key(|map| map.address.0);
        let lowest = lowest.ok_or(ProcessError::Ended { pid: self.pid })?;
        Ok((lowest.address.0, lowest.offset))
    }

    /// Run-time less link-time address of the executable's code.
    pub fn bias(&self, elf: &ElfFacts) -> Result<u64, ProcessError> {
        let (address, offset) = self.mapped_at()?;
        elf.bias(address, offset).ok_or(ProcessError::Ended { pid: self.pid })
    }

    /// A descriptor that becomes readable when this process ends; none is had for another process of the same pid.
    pub fn pidfd(&self) -> Result<OwnedFd, ProcessError> {
        let pid = rustix::process::Pid::from_raw(self.pid as i32).ok_or(ProcessError::NotFound(self.pid))?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)
            .map_err(|source| self.io("pidfd", source.into()))?;
        // The pid may have been reused before the descriptor was had.
        if self.is_alive() {
            Ok(fd)
        } else {
            Err(ProcessError::Ended { pid: self.pid })
        }
    }

    fn io(&self, what: &'static str, source: io::Error) -> ProcessError {
        let pid = self.pid;
        match source.kind() {
            io::ErrorKind::PermissionDenied => ProcessError::NoPermission { pid, what },
            io::ErrorKind::NotFound => ProcessError::Ended { pid },
            _ => ProcessError::Io { pid, what, source },
        }
    }
}

/// What the process has mapped.
pub(super) fn maps(pid: u32) -> Result<MemoryMaps, ProcessError> {
    open(pid)?.maps().map_err(|source| proc_error(pid, "maps", source))
}

fn open(pid: u32) -> Result<procfs::process::Process, ProcessError> {
    i32::try_from(pid)
        .map_err(|_| ProcessError::NotFound(pid))
        .and_then(|raw| procfs::process::Process::new(raw).map_err(|source| proc_error(pid, "/proc entry", source)))
}

fn proc_error(pid: u32, what: &'static str, source: ProcError) -> ProcessError {
    match source {
        ProcError::PermissionDenied(_) => ProcessError::NoPermission { pid, what },
        ProcError::NotFound(_) => ProcessError::NotFound(pid),
        source => ProcessError::Proc { pid, what, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_and_lives() {
        let own = Process::read(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!own.is_replaced());
        let another = Process {
            start: own.start + 1,
            ..own.clone()
        };
        assert!(!another.is_alive(), "a later process of the same pid is another one");
        let (address, offset) = own.mapped_at().unwrap();
        assert_eq!((address % 4096, offset), (0, 0));
    }

    #[test]
    fn a_pid_that_is_not_there_is_named() {
        assert_eq!(
            Process::read(u32::MAX).unwrap_err().to_string(),
            "no process 4294967295"
        );
    }
}
