//! One process as /proc shows it.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use procfs::{
    ProcError,
    process::{MemoryMaps, Stat},
};

use crate::{
    deadline,
    inspect::{self, ElfFacts, Image, InspectError},
};

/// Where the proc filesystem is.
pub const PROC: &str = "/proc";

/// The same, for those who read it.
pub fn proc() -> Arc<Path> {
    Arc::from(Path::new(PROC))
}

/// Identity of a file's contents, as far as its inode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Which program of a pid: another process that has the pid later differs by its start, another program that the process becomes by
/// an exec by where its memory is laid out, with address space randomisation at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Clock ticks after boot (proc(5), stat field 22).
    start: u64,
    /// Bounds of its code and bottom of its stack (fields 26 to 28).
    places: [u64; 3],
}

impl Program {
    /// What a process is now, and the kernel's name of it; `root` is where the proc filesystem is.
    pub fn read(root: &Path, pid: u32) -> Result<(Self, String), ProcessError> {
        let stat = open_in(root, pid)?.stat();
        stat.map(|stat| (Self::of(&stat), stat.comm))
            .map_err(|source| proc_error(pid, "stat", source))
    }

    fn of(stat: &Stat) -> Self {
        Self {
            start: stat.starttime,
            places: [stat.startcode, stat.endcode, stat.startstack],
        }
    }
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
    /// None of a recorded process.
    pub program: Option<Program>,
    /// Where the proc filesystem is that it was read in, and is read in again.
    pub root: Arc<Path>,
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
    #[error(
        "process {pid}: its first instruction, at {entry:#x}, is not its executable's: it was not loaded as the kernel does"
    )]
    Elsewhere { pid: u32, entry: u64 },
    #[error("process {pid} ended")]
    Ended { pid: u32 },
}

impl ProcessError {
    /// Whether it may be so for a while only, as where the agent has no descriptor left: the process is to be looked at again.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Proc { .. })
    }
}

impl Process {
    /// Reads a process' identity.
    pub fn read(pid: u32) -> Result<Self, ProcessError> {
        Self::read_in(&proc(), pid)
    }

    /// The same, where the proc filesystem is at `root`.
    pub fn read_in(root: &Arc<Path>, pid: u32) -> Result<Self, ProcessError> {
        let found = open_in(root, pid)?;
        let stat = found.stat().map_err(|source| proc_error(pid, "stat", source))?;
        let exe = match found.exe() {
            Ok(exe) => exe,
            // Kernel threads have no executable.
            Err(ProcError::NotFound(_)) if stat.ppid <= 2 => return Err(ProcessError::KernelThread { pid }),
            Err(source) => return Err(proc_error(pid, "exe", source)),
        };
        Ok(Self {
            pid,
            program: Some(Program::of(&stat)),
            start: stat.starttime,
            exe,
            name: stat.comm,
            root: root.clone(),
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

    /// What there is at its pid now.
    pub fn now(&self) -> Result<Self, ProcessError> {
        Self::read_in(&self.root, self.pid)
    }

    /// Whether this very process still runs, as far as is known: one that cannot be read just now does, and its end is told otherwise.
    pub fn is_alive(&self) -> bool {
        match self.now() {
            Ok(now) => now.start == self.start,
            Err(error) => error.may_pass(),
        }
    }

    /// Its folder in the proc filesystem.
    pub fn entry(&self) -> PathBuf {
        self.root.join(self.pid.to_string())
    }

    /// The executable's path through /proc, which holds even when the file was replaced.
    pub fn exe_path(&self) -> PathBuf {
        self.entry().join("exe")
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

    /// Identity of the executable that runs. Its file system may never answer.
    pub fn exe_id(&self) -> Result<FileId, ProcessError> {
        let meta = fs::metadata(self.exe_path()).map_err(|source| self.io("exe", source))?;
        Ok(FileId {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// What its executable is; the inner error is about the file's contents. Its file system may never answer.
    pub fn inspect(&self) -> Result<Result<Option<Box<dyn Image>>, InspectError>, ProcessError> {
        let file = File::open(self.exe_path()).map_err(|source| self.io("exe", source))?;
        Ok(inspect::inspect_file(&file))
    }

    /// The file of its executable.
    pub fn open_exe(&self) -> Result<File, ProcessError> {
        let path = self.exe_path();
        deadline::soon(self.pid, || File::open(path)).map_err(|source| self.io("exe", source))
    }

    /// Run-time less link-time address of the executable's code: the kernel tells a new program where its first instruction is (AT_ENTRY,
    /// linux, fs/binfmt_elf.c, create_elf_tables). Mappings do not tell: a process may map its executable again, to read its own
    /// symbols, and a file's inode number in /proc/PID/maps need not be its own on overlayfs.
    pub fn bias(&self, elf: &ElfFacts) -> Result<u64, ProcessError> {
        const AT_ENTRY: u64 = 9;
        let auxv = open_in(&self.root, self.pid)?.auxv();
        let auxv = auxv.map_err(|source| proc_error(self.pid, "auxv", source))?;
        // Of a process that ended there is nothing left.
        let entry = auxv.get(&AT_ENTRY).ok_or(ProcessError::Ended { pid: self.pid })?;
        elf.bias(*entry).ok_or(ProcessError::Elsewhere {
            pid: self.pid,
            entry: *entry,
        })
    }

    /// A descriptor that becomes readable when this process ends; none is had for another process of the same pid.
    pub fn pidfd(&self) -> Result<OwnedFd, ProcessError> {
        let pid = rustix::process::Pid::from_raw(self.pid as i32).ok_or(ProcessError::NotFound(self.pid))?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)
            .map_err(|source| self.io("pidfd", source.into()))?;
        // The pid may have been reused before the descriptor was had.
        self.check()?;
        Ok(fd)
    }

    /// That this very process still runs, for certain.
    pub fn check(&self) -> Result<(), ProcessError> {
        match self.now() {
            Ok(now) if now.start == self.start => Ok(()),
            Err(error) if error.may_pass() => Err(error),
            _ => Err(ProcessError::Ended { pid: self.pid }),
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
pub(super) fn maps(process: &Process) -> Result<MemoryMaps, ProcessError> {
    let pid = process.pid;
    let maps = open_in(&process.root, pid)?.maps();
    maps.map_err(|source| proc_error(pid, "maps", source))
}

/// The threads of a process, by their tids.
pub fn threads(pid: u32) -> io::Result<HashSet<u32>> {
    let entries = fs::read_dir(Path::new(PROC).join(pid.to_string()).join("task"))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

fn open_in(root: &Path, pid: u32) -> Result<procfs::process::Process, ProcessError> {
    let found = procfs::process::Process::new_with_root(root.join(pid.to_string()));
    found.map_err(|source| proc_error(pid, "/proc entry", source))
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
    }

    #[test]
    fn a_pid_that_is_not_there_is_named() {
        assert_eq!(
            Process::read(u32::MAX).unwrap_err().to_string(),
            "no process 4294967295"
        );
    }
}
