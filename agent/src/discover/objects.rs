//! Runtimes in the shared objects of a process: a Go library in a Python host, an extension module with tokio in it. They are
//! recognised, so that it can be said why nothing of them is watched.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    panic::catch_unwind,
    path::PathBuf,
};

use procfs::process::{MMPermissions, MMapPath, MemoryMap};
use rustix::fs::fstatfs;

use super::{Process, process::maps};
use crate::{
    deadline,
    inspect::{self, InspectError},
};

/// Shared objects that are looked at: a host with many extensions has some hundred.
const MOST: usize = 512;

/// [`runtime_in`], or that the objects do not answer.
pub fn answered_runtime_in(process: &Process) -> Option<InspectError> {
    let (pid, process) = (process.pid, process.clone());
    let found = deadline::FILES.within(pid, deadline::LONG, move || runtime_in(&process));
    found.unwrap_or_else(|late| Some(InspectError::NoAnswer(late.to_string())))
}

/// The first runtime that is in a shared object of the process, as what keeps it from being watched.
pub fn runtime_in(process: &Process) -> Option<InspectError> {
    // What is read was made by others: a panic is an error of ours, and not the agent's end.
    catch_unwind(|| look(process)).unwrap_or(Some(InspectError::Panicked))
}

fn look(process: &Process) -> Option<InspectError> {
    let maps = maps(process).ok()?;
    // The executable itself was looked at before. It is told by its path, as what stat says of a file need not be what stands here.
    let objects = maps.iter().filter_map(|map| {
        let path = path(map).filter(|path| **path != process.exe)?;
        let is_code = map.perms.contains(MMPermissions::EXECUTE) && map.inode != 0;
        is_code.then_some((map, path))
    });
    let mut seen = HashSet::new();
    let objects = objects.filter(|(map, _)| seen.insert((map.dev, map.inode))).take(MOST);
    let mut found = objects.filter_map(|(map, path)| {
        let runtime = inspect::runtime_of_object(&open(process, map)?)?;
        Some(InspectError::InObject {
            runtime,
            object: path.display().to_string(),
        })
    });
    found.next()
}

fn path(map: &MemoryMap) -> Option<&PathBuf> {
    match &map.pathname {
        MMapPath::Path(path) => Some(path),
        _ => None,
    }
}

/// The file of a mapping: itself, where that is allowed (CAP_CHECKPOINT_RESTORE), else by its path as the process has it.
fn open(process: &Process, map: &MemoryMap) -> Option<File> {
    let (from, to) = map.address;
    File::open(process.entry().join(format!("map_files/{from:x}-{to:x}")))
        .ok()
        .or_else(|| open_path(process, map))
}

/// The file that stands at a mapping's path, if it is the one that is mapped.
fn open_path(process: &Process, map: &MemoryMap) -> Option<File> {
    let path = path(map)?;
    // Something else may stand there by now: a pipe would never open.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut there = process.entry().join("root").into_os_string();
    there.push(path);
    let file = options.open(there).ok()?;
    let meta = file.metadata().ok()?;
    // On overlayfs older kernels show the inode of the file below (linux 6.1, fs/overlayfs/file.c, ovl_mmap), which nothing else tells. There
    // the path tells: of a file that another has replaced since it ends with " (deleted)".
    let is_mapped =
        || meta.ino() == map.inode || fstatfs(&file).is_ok_and(|of| of.f_type == libc::OVERLAYFS_SUPER_MAGIC);
    (meta.is_file() && is_mapped()).then_some(file)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A child that is ended with the test.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Where overlay stands in a mount namespace of the process' own: `sleep` was copied up into it and runs.
    const OVERLAID: &str = r#"
        mount -t tmpfs none "$0" && cd "$0" && mkdir lower upper work merged && cp "$(command -v sleep)" lower/sleep &&
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && touch merged/sleep &&
        stat --format=%i upper/sleep && exec "$0/merged/sleep" 600
    "#;

    #[test]
    fn a_file_on_overlayfs_is_opened_by_its_path_whatever_inode_is_shown() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
            eprintln!("SKIPPED: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", OVERLAID]).arg(folder.path());
        let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        let output = running.0.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let below: u64 = line.trim().parse().expect("an overlay is mounted");
        let process = &Process::read(running.0.id()).unwrap();
        let sleep = folder.path().join("merged/sleep");
        let mapped = || maps(process).is_ok_and(|maps| maps.iter().any(|map| path(map) == Some(&sleep)));
        while !mapped() {
            // Until it execs.
            assert_eq!(running.0.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        let maps = maps(process).unwrap();
        let map = maps.iter().find(|map| path(map) == Some(&sleep)).unwrap();
        let is_it = |map: &MemoryMap| {
            let file = open_path(process, map)?;
            Some((file.metadata().unwrap().len(), file.metadata().unwrap().is_file()))
        };
        let expected = Some((
            std::fs::metadata(format!("/proc/{}/exe", process.pid)).unwrap().len(),
            true,
        ));
        assert_eq!(is_it(map), expected, "as this kernel shows it");
        let older = MemoryMap {
            inode: below,
            ..map.clone()
        };
        let shown = std::fs::metadata(format!("/proc/{}/exe", process.pid)).unwrap().ino();
        assert_ne!(shown, below);
        assert_eq!(is_it(&older), expected, "as an older one shows it");
        // Another file has its name.
        std::fs::write(
            format!("/proc/{}/root{}.new", process.pid, sleep.display()),
            "no program",
        )
        .unwrap();
        let moved = |to: &str| format!("/proc/{}/root{}{to}", process.pid, sleep.display());
        std::fs::rename(moved(".new"), moved("")).unwrap();
        let maps = super::maps(process).unwrap();
        let name = format!("{} (deleted)", sleep.display());
        let map = maps
            .iter()
            .find(|map| path(map).is_some_and(|path| **path == *name))
            .unwrap();
        assert_eq!(is_it(map), None, "replaced");
    }
}
