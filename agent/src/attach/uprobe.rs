//! Plane 2: puts the plan's probes into one process, and takes them out again.

use std::{fs::File, num::NonZeroU32, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope},
    },
};

use tokio::sync::Semaphore;

use super::{kernel::chain, plan::Probe};
use crate::discover::Process;

/// Every uprobe program of the object, by its name there.
pub const PROGRAMS: [&str; 12] = [
    "go_execute",
    "go_runqput",
    "go_gosched",
    "go_exitsyscall",
    "go_netpoll",
    "go_injectglist",
    "go_gc_cycle",
    "tokio_poll_begin",
    "tokio_poll_end",
    "tokio_park",
    "tokio_schedule",
    "tokio_spawn",
];

/// Where probes go.
#[derive(Clone, Debug)]
pub struct Place {
    pub pid: u32,
    /// The executable that runs, as /proc shows it.
    pub exe: PathBuf,
}

impl Place {
    pub fn of(process: &Process) -> Self {
        Self {
            pid: process.pid,
            exe: process.exe_path(),
        }
    }
}

/// Probes in one process; dropping it detaches them.
#[derive(Default)]
pub struct Links {
    links: Vec<UProbeLink>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{function} at {offset:#x}: the bytes in the file are no longer those that were proved: not attached")]
    BytesChanged { function: String, offset: u64 },
    #[error("{function} at {offset:#x}: cannot read the executable: {source}")]
    Read {
        function: String,
        offset: u64,
        source: std::io::Error,
    },
    #[error("{function} at {offset:#x}: the kernel refused the uprobe: {reason}")]
    Refused {
        function: String,
        offset: u64,
        reason: String,
    },
    #[error("the object has no uprobe program {0}")]
    NoProgram(&'static str),
}

/// Loads all uprobe programs; attaching is then only a link.
pub fn load(ebpf: &mut Ebpf) -> Result<(), (&'static str, String)> {
    for name in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or((name, "not in the object".to_owned()))?;
        let outcome = <&mut UProbe>::try_from(program).and_then(UProbe::load);
        outcome.map_err(|error| (name, chain(&error)))?;
    }
    Ok(())
}

/// Attaches one probe to one process, after checking that the file still holds the bytes that were proved.
pub fn attach(ebpf: &mut Ebpf, place: &Place, probe: &Probe, links: &mut Links) -> Result<(), AttachError> {
    let site = &probe.site;
    let (function, offset) = (site.function.clone(), site.file_offset);
    let path = &place.exe;
    let mut found = vec![0; site.bytes.len()];
    if let Err(source) = File::open(path).and_then(|file| file.read_exact_at(&mut found, offset)) {
        return Err(AttachError::Read {
            function,
            offset,
            source,
        });
    }
    if found != site.bytes {
        return Err(AttachError::BytesChanged { function, offset });
    }
    let Some(pid) = NonZeroU32::new(place.pid) else {
        return Err(AttachError::NoProgram(probe.program));
    };
    let program = ebpf
        .program_mut(probe.program)
        .ok_or(AttachError::NoProgram(probe.program))?;
    let link = <&mut UProbe>::try_from(program).and_then(|program| {
        let id = program.attach(
            UProbeAttachLocation::AbsoluteOffset(offset),
            path,
            UProbeScope::OneProcess(pid),
        )?;
        program.take_link(id)
    });
    let link = link.map_err(|error: ProgramError| AttachError::Refused {
        function,
        offset,
        reason: chain(&error),
    })?;
    links.links.push(link);
    Ok(())
}

impl Links {
    /// Number of probes in place.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Detaches, as many at once as there are `permits`: each waits for the kernel, and waiting side by side takes as long
    /// as one.
    pub async fn detach(self, permits: Arc<Semaphore>) {
        let mut tasks = Vec::new();
        for link in self.links {
            let permit = permits.clone().acquire_owned().await;
            tasks.push(tokio::task::spawn_blocking(move || {
                drop(link);
                drop(permit);
            }));
        }
        for task in tasks {
            // A panic while dropping would have nothing left to undo.
            let _ = task.await;
        }
    }

    /// Whether no probe is in place.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }
}
