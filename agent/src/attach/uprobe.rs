//! Plane 2: attaches the plan's probes to one process, and detaches them.

use std::{
    num::NonZeroU32,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use agent_common::hits;
use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope},
    },
};
use tokio::sync::Semaphore;

use super::{
    bytes::{is_missed, not_in_memory, unchanged},
    kernel::chain,
    multi::Multi,
    plan::{Failure, Probe},
};
use crate::{bpf, bpf::Runs, discover::Process, kernel::Preemption};

/// Uprobe programs for measurements.
const TIMED: [&str; 2] = ["calibrate", "flood"];

/// Every uprobe program of the object, by its name there.
pub fn programs() -> Vec<&'static str> {
    let probes = hits::HitKind::ALL.iter().filter(|(kind, _)| kind.is_uprobe());
    let of_probes = probes.flat_map(|(_, programs)| programs.iter().copied());
    TIMED.into_iter().chain(of_probes).collect()
}

/// The executable that probes go into, as one process has loaded it.
#[derive(Clone, Debug)]
pub struct LoadedExe {
    pub pid: u32,
    /// Its path under /proc.
    pub path: PathBuf,
    /// Load bias: run-time address less link-time address.
    pub bias: u64,
}

impl LoadedExe {
    pub fn of(process: &Process, bias: u64) -> Self {
        Self {
            pid: process.pid,
            path: process.exe_path(),
            bias,
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
    #[error("{function} at {offset:#x}: the bytes in the file changed after whywait verified them: not attached")]
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
    #[error(
        "{function} at {offset:#x}: the process runs another file than the one that is at its path now, for example after a change on an overlay file system: its probes cannot be hit"
    )]
    NotInMemory { function: String, offset: u64 },
    #[error("the object has no uprobe program {0}")]
    NoProgram(&'static str),
}

/// The loaded object: programs, maps, and how its uprobes are attached.
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
        let refused = match Multi::load(&ebpf, &programs(), preemption) {
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
            // The programs in the object have no guard against preemption.
            Ok(Some(_)) => Way::None(format!(
                "on this kernel two runs of a program on one CPU may share a stack, which could crash the host, and the kernel refused the programs that prevent this: {refused}"
            )),
            Err(error) => Way::None(error.to_string()),
            Ok(None) => {
                for name in programs() {
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

    /// The kernel's counts of a program: its runs, while statistics were enabled, and runs that it skipped; None for one that is not
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

/// Attaches one probe to one process, after checking that the file still has the verified bytes.
pub fn attach(object: &mut Object, exe: &LoadedExe, probe: &Probe, links: &mut Links) -> Result<(), AttachError> {
    unchanged(exe, std::slice::from_ref(probe))
        .remove(0)
        .and_then(|()| put(object, exe, probe, links))
}

/// Attaches one probe whose bytes were checked.
fn put(object: &mut Object, exe: &LoadedExe, probe: &Probe, links: &mut Links) -> Result<(), AttachError> {
    let (function, offset) = (probe.site.function.clone(), probe.site.file_offset);
    let path = &exe.path;
    let Some(pid) = NonZeroU32::new(exe.pid) else {
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

/// What became of probes that were to be attached.
#[derive(Default)]
pub struct Outcome {
    pub links: Links,
    pub failures: Vec<Failure>,
    /// Those that are not attached.
    pub missing: Vec<Probe>,
}

/// Attaches all probes that can be attached. If an essential probe of a signal fails, none of the signal's probes stays.
pub fn attach_all(object: &Mutex<Object>, exe: &LoadedExe, probes: &[Probe]) -> Outcome {
    let (mut attached, mut failed) = (Vec::new(), Vec::new());
    // Before the object is locked: a file that does not answer must not block others that wait for it.
    for (probe, unchanged) in probes.iter().zip(unchanged(exe, probes)) {
        let mut links = Links::default();
        let outcome = unchanged.and_then(|()| {
            // Locked for each probe: the agent's loop may wait for it.
            let mut object = object.lock().unwrap_or_else(PoisonError::into_inner);
            put(&mut object, exe, probe, &mut links)
        });
        match outcome {
            Ok(()) => attached.push((probe, links)),
            Err(error) => failed.push((probe, error.to_string())),
        }
    }
    if attached.first().is_some_and(|(probe, _)| is_missed(exe, probe)) {
        failed.extend(
            attached
                .drain(..)
                .map(|(probe, _)| (probe, not_in_memory(probe).to_string())),
        );
    }
    let in_place: Vec<&Probe> = attached.iter().map(|(probe, _)| *probe).collect();
    let failures = failures(&in_place, &failed);
    let (kept, dark): (Vec<_>, Vec<_>) = attached.into_iter().partition(|(probe, _)| {
        let is_dark = |signal| {
            failures
                .iter()
                .any(|failure| failure.essential && failure.signal == signal)
        };
        !probe.signals().all(is_dark)
    });
    let dark = dark.into_iter().map(|(probe, _)| probe);
    Outcome {
        links: Links {
            links: kept.into_iter().flat_map(|(_, links)| links.links).collect(),
        },
        missing: failed.iter().map(|(probe, _)| *probe).chain(dark).cloned().collect(),
        failures,
    }
}

/// What the signals of probes that `failed` lack. Where a program has several sites, one that is left keeps the signal on.
fn failures(in_place: &[&Probe], failed: &[(&Probe, String)]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (probe, reason) in failed {
        let another = in_place.iter().any(|other| other.program == probe.program);
        failures.extend(probe.signals().map(|signal| Failure {
            signal,
            essential: probe.essential && !another,
            reason: reason.clone(),
        }));
    }
    failures
}

impl Links {
    /// Number of attached probes.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Takes others in.
    pub fn extend(&mut self, others: Self) {
        self.links.extend(others.links);
    }

    /// Detaches, as many at once as there are `permits`: each waits for the kernel, and all at once take as long as one.
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

    /// Whether no probe is attached.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{ProbeSite, SiteCost};

    fn probe(program: &'static str, also: Option<&'static str>, essential: bool) -> Probe {
        Probe {
            signal: "one",
            also,
            essential,
            program,
            site: ProbeSite {
                function: program.to_owned(),
                vaddr: 0,
                file_offset: 0,
                bytes: Vec::new(),
                cost: SiteCost::Emulated,
                behind_stack_check: false,
                may_repeat: false,
                args: Vec::new(),
            },
        }
    }

    #[track_caller]
    fn check(in_place: &[Probe], failed: Probe, expected: &[(&str, bool)]) {
        let in_place: Vec<&Probe> = in_place.iter().collect();
        let failures = failures(&in_place, &[(&failed, "refused".to_owned())]);
        let found: Vec<_> = failures.iter().map(|of| (of.signal, of.essential)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_signal_is_off_where_no_site_of_what_it_needs_is_left() {
        check(&[], probe("begin", None, true), &[("one", true)]);
        check(&[], probe("park", None, false), &[("one", false)]);
        check(&[], probe("begin", Some("two"), true), &[("one", true), ("two", true)]);
        check(
            &[probe("begin", None, true)],
            probe("begin", None, true),
            &[("one", false)],
        );
        check(
            &[probe("park", None, false)],
            probe("begin", None, true),
            &[("one", true)],
        );
    }
}
