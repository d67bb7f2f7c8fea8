//! Plane 2: puts the plan's probes into one process, and takes them out again.

use std::{
    fs::File,
    num::NonZeroU32,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope},
    },
};

use tokio::sync::Semaphore;

use super::{kernel::chain, multi::Multi, plan::Probe};
use crate::{bpf, bpf::Runs, discover::Process, kernel::Preemption};

/// Every uprobe program of the object, by its name there.
pub const PROGRAMS: [&str; 20] = [
    "calibrate",
    "flood",
    "go_execute",
    "go_runqput",
    "go_gosched",
    "go_exitsyscall",
    "go_netpoll",
    "go_injectglist",
    "go_park",
    "go_exit",
    "go_gc_cycle",
    "go_stw",
    "go_stop",
    "go_assist",
    "go_handoff",
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
    links: Vec<Link>,
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

/// The loaded object: programs, maps, and the way its uprobes are attached.
pub struct Object {
    pub ebpf: Ebpf,
    way: Way,
    /// Why not by uprobe_multi links.
    pub refused: Option<String>,
}

enum Way {
    /// Programs that may not be preempted, where `guarded`: the kernel would let two runs of one share a stack.
    Multi {
        multi: Multi,
        guarded: bool,
    },
    Perf,
    /// No uprobes on this kernel, and why.
    None(String),
}

/// A probe in place; dropping it detaches it.
enum Link {
    Multi(#[expect(dead_code, reason = "held to be dropped")] OwnedFd),
    Perf(#[expect(dead_code, reason = "held to be dropped")] UProbeLink),
}

impl Object {
    /// Loads all uprobe programs, for uprobe_multi links where this kernel permits them, else for perf events; attaching is
    /// then only a link. Where a program that is preempted could harm the kernel and cannot be kept from it, none is loaded.
    pub fn new(mut ebpf: Ebpf, preemption: &Preemption) -> Result<Self, (&'static str, String)> {
        let refused = match Multi::load(&ebpf, &PROGRAMS, preemption) {
            Ok(multi) => {
                let guarded = matches!(preemption.guard(), Ok(Some(_)));
                let way = Way::Multi { multi, guarded };
                return Ok(Self {
                    ebpf,
                    way,
                    refused: None,
                });
            }
            Err(reason) => reason,
        };
        let way = match preemption.guard() {
            // As they stand in the object they may be preempted.
            Ok(Some(_)) => Way::None(format!(
                "this kernel gives programs stacks that two runs on one CPU would share, which could crash the host, and refused the \
                 programs that keep them apart: {refused}"
            )),
            Err(error) => Way::None(error.to_string()),
            Ok(None) => {
                for name in PROGRAMS {
                    let program = ebpf.program_mut(name).ok_or((name, "not in the object".to_owned()))?;
                    let outcome = <&mut UProbe>::try_from(program).and_then(UProbe::load);
                    outcome.map_err(|error| (name, chain(&error)))?;
                }
                Way::Perf
            }
        };
        Ok(Self {
            ebpf,
            way,
            refused: Some(refused),
        })
    }

    /// How uprobes are attached.
    pub fn way(&self) -> &'static str {
        match self.way {
            Way::Multi { guarded: false, .. } => "uprobe_multi",
            Way::Multi { guarded: true, .. } => "uprobe_multi, with preemption off while a program runs",
            Way::Perf => "perf events",
            Way::None(_) => "nothing: they are off",
        }
    }

    /// Why this kernel gets no uprobes at all; None where it does.
    pub fn without_uprobes(&self) -> Option<&str> {
        match &self.way {
            Way::None(reason) => Some(reason),
            _ => None,
        }
    }

    /// What the kernel says of a program: its runs, while it kept statistics, and runs that it skipped; None for one that is not
    /// loaded.
    pub fn runs(&self, name: &str) -> Option<Runs> {
        if let Way::Multi { multi, .. } = &self.way
            && let Some(program) = multi.program(name)
        {
            return bpf::runs(program).ok();
        }
        let program = self.ebpf.program(name)?.fd().ok()?.as_fd();
        bpf::runs(program).ok()
    }

    /// Runs that the kernel skipped, by program, since another run of the same was under way on that CPU: what they would have
    /// counted is lost. Programs that are not loaded are left out.
    pub fn skipped(&self) -> Vec<(&str, u64)> {
        let programs = self.ebpf.programs().map(|(name, _)| name);
        programs
            .filter_map(|name| Some((name, self.runs(name)?.skipped)))
            .collect()
    }

    /// A uprobe program on an offset of a file, in one process.
    pub fn attach(&mut self, name: &'static str, path: &Path, offset: u64, pid: NonZeroU32) -> Result<Links, String> {
        let link = match &self.way {
            Way::Multi { multi, .. } => multi
                .attach(name, path, offset, pid.get())
                .map(Link::Multi)
                .map_err(|error| error.to_string())?,
            Way::Perf => {
                let program = self.ebpf.program_mut(name).ok_or("not in the object")?;
                let link = <&mut UProbe>::try_from(program).and_then(|program| {
                    let offset = UProbeAttachLocation::AbsoluteOffset(offset);
                    let id = program.attach(offset, path, UProbeScope::OneProcess(pid))?;
                    program.take_link(id)
                });
                Link::Perf(link.map_err(|error| chain(&error))?)
            }
            Way::None(reason) => return Err(reason.clone()),
        };
        Ok(Links { links: vec![link] })
    }
}

/// Attaches one probe to one process, after checking that the file still holds the bytes that were proved.
pub fn attach(object: &mut Object, place: &Place, probe: &Probe, links: &mut Links) -> Result<(), AttachError> {
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
    let link = object.attach(probe.program, path, offset, pid);
    let link = link.map_err(|reason| AttachError::Refused {
        function,
        offset,
        reason,
    })?;
    links.links.extend(link.links);
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
