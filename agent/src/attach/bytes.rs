//! Checks that an executable still has the bytes that were verified, and that the process has the breakpoint of a probe. Read in another
//! thread, since neither a file system nor a page of memory may ever answer.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    plan::Probe,
    uprobe::{AttachError, LoadedExe},
};
use crate::{deadline, memory::Memory};

/// For each probe, whether the file still has the bytes that were verified.
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

/// Whether the process still has the verified bytes where a probe was attached, and no breakpoint: then the kernel put the probe into
/// another file than the one that is mapped (linux, kernel/events/uprobes.c, uses the inode at the path). One probe is enough for all in
/// that file. False when the memory cannot be read.
pub(super) fn is_missed(exe: &LoadedExe, probe: &Probe) -> bool {
    let (pid, address) = (exe.pid, probe.site.vaddr.wrapping_add(exe.bias));
    let mut found = vec![0; probe.site.bytes.len()];
    let read = deadline::MEMORY.within(pid, deadline::SOON, move || {
        Memory::open(pid)?.read(address, &mut found).map(|()| found)
    });
    matches!(read, Ok(Ok(found)) if found == probe.site.bytes)
}

/// The error for such a probe.
pub(super) fn not_in_memory(probe: &Probe) -> AttachError {
    AttachError::NotInMemory {
        function: probe.site.function.clone(),
        offset: probe.site.file_offset,
    }
}
