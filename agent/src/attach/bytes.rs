//! Whether an executable still holds the bytes that were proved, and the process that runs it those of a probe; read aside, as neither
//! a file system nor a page of memory may ever answer.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    plan::Probe,
    uprobe::{AttachError, LoadedExe},
};
use crate::{deadline, memory::Memory};

/// Of each probe, whether the file still holds the bytes that were proved.
pub(super) fn unchanged(exe: &LoadedExe, probes: &[Probe]) -> Vec<Result<(), AttachError>> {
    if probes.is_empty() {
        return Vec::new();
    }
    let sites: Vec<_> = probes
        .iter()
        .map(|Probe { site, .. }| (site.file_offset, site.bytes.len()))
        .collect();
    let path = exe.path.clone();
    let read = deadline::soon(exe.pid, move || {
        let file = File::open(path)?;
        let read = |(offset, length): (u64, usize)| {
            let mut found = vec![0; length];
            file.read_exact_at(&mut found, offset).map(|()| found)
        };
        Ok(sites.into_iter().map(read).collect::<Vec<_>>())
    });
    let read = read.unwrap_or_else(|error| {
        let again = || io::Error::new(error.kind(), error.to_string());
        probes.iter().map(|_| Err(again())).collect()
    });
    let check = |(probe, found): (&Probe, io::Result<Vec<u8>>)| {
        let (function, offset) = (probe.site.function.clone(), probe.site.file_offset);
        match found {
            Ok(found) if found == probe.site.bytes => Ok(()),
            Ok(_) => Err(AttachError::BytesChanged { function, offset }),
            Err(source) => Err(AttachError::Read {
                function,
                offset,
                source,
            }),
        }
    };
    probes.iter().zip(read).map(check).collect()
}

/// Whether the process still has the bytes that were proved where a probe was put, and no breakpoint: the kernel has put it into another
/// file than the one that is mapped there (linux, kernel/events/uprobes.c, goes by the inode that a path leads to). What is true of
/// one is of all in that file; what cannot be read says nothing.
pub(super) fn is_missed(exe: &LoadedExe, probe: &Probe) -> bool {
    let (pid, address) = (exe.pid, probe.site.vaddr.wrapping_add(exe.bias));
    let mut found = vec![0; probe.site.bytes.len()];
    let read = deadline::MEMORY.within(pid, deadline::SOON, move || {
        Memory::open(pid)?.read(address, &mut found).map(|()| found)
    });
    matches!(read, Ok(Ok(found)) if found == probe.site.bytes)
}

/// What is to say of a probe then.
pub(super) fn not_in_memory(probe: &Probe) -> AttachError {
    AttachError::NotInMemory {
        function: probe.site.function.clone(),
        offset: probe.site.file_offset,
    }
}
