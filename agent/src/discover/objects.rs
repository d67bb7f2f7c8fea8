//! Runtimes in the shared objects of a process: a Go library in a Python host, an extension module with tokio in it. They are
//! recognised, so that it can be said why nothing of them is watched.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    panic::catch_unwind,
};

use procfs::process::{MMPermissions, MMapPath, MemoryMap};

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
    let own = std::fs::metadata(process.exe_path()).ok()?.ino();
    let mut seen = HashSet::from([own]);
    let maps = maps(process).ok()?;
    let code = maps
        .iter()
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE) && map.inode != 0);
    let objects = code.filter(|map| seen.insert(map.inode)).take(MOST);
    let mut found = objects.filter_map(|map| {
        let runtime = inspect::runtime_of_object(&open(process, map)?)?;
        let MMapPath::Path(path) = &map.pathname else {
            return None;
        };
        Some(InspectError::InObject {
            runtime,
            object: path.display().to_string(),
        })
    });
    found.next()
}

/// The file of a mapping: itself, where that is allowed (CAP_CHECKPOINT_RESTORE), else by its path as the process has it.
fn open(process: &Process, map: &MemoryMap) -> Option<File> {
    let MMapPath::Path(path) = &map.pathname else {
        return None;
    };
    let (from, to) = map.address;
    let by_path = || {
        // Something else may stand there by now: a pipe would never open.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut there = process.entry().join("root").into_os_string();
        there.push(path);
        let file = options.open(there).ok()?;
        let same = file
            .metadata()
            .is_ok_and(|file| file.is_file() && file.ino() == map.inode);
        same.then_some(file)
    };
    File::open(process.entry().join(format!("map_files/{from:x}-{to:x}")))
        .ok()
        .or_else(by_path)
}
