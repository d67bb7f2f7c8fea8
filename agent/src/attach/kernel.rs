//! Plane 1: loads the programs and attaches those that need no target. A hook names its alternatives in order of
//! preference; the first that this kernel permits is taken, and what was refused is kept with its reason.

use std::path::Path;

use agent_common::{
    kernel::Layout,
    target::{PID_LIMIT, PIDS_A_WORD},
};
use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    programs::{BtfTracePoint, FExit, Program, ProgramError, fexit::FExitLinkId, tp_btf::BtfTracePointLinkId},
};

use crate::{
    exit::causes,
    intake::kernel_log::KernelLog,
    signal::{Coverage, Hook, HookProgram, LEFT_OUT, Point, SignalState},
};

/// Exists if the host has IPv6.
const IPV6: &str = "/proc/net/if_inet6";

/// Used as an alternative's name when none was tried.
pub const ALL: &str = "all";

/// The programs of a hook that is detached: they stay loaded, and are attached together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedHook {
    pub signal: &'static str,
    pub programs: Vec<HookProgram>,
}

/// A hook that is attached.
#[derive(Debug)]
pub struct AttachedHook {
    pub signal: &'static str,
    links: Vec<HookLink>,
}

#[cfg(test)]
impl AttachedHook {
    /// One of no programs.
    pub fn bare(signal: &'static str) -> Self {
        let links = Vec::new();
        Self { signal, links }
    }
}

/// A program of a hook that is attached.
#[derive(Debug)]
struct HookLink {
    program: HookProgram,
    id: LinkId,
}

#[derive(Debug)]
enum LinkId {
    TpBtf(BtfTracePointLinkId),
    FExit(FExitLinkId),
}

/// State of a hook.
#[derive(Debug)]
pub struct HookState {
    pub signal: &'static str,
    /// False for a hook that must be requested and was not.
    pub wanted: bool,
    /// The alternative in use; None when the kernel permitted none.
    pub taken: Option<&'static str>,
    /// What that one does not show on this host.
    pub lacks: Option<&'static str>,
    /// Alternatives that were refused, and why.
    pub refused: Vec<(&'static str, String)>,
    /// Its links, when it is [`Hook::windowed`].
    pub attached: Option<AttachedHook>,
}

impl HookState {
    /// Coverage of the signal; None when it is not wanted.
    pub fn coverage(&self) -> Option<SignalState> {
        let coverage = match self.taken {
            Some(_) => self
                .lacks
                .map_or(Coverage::Full, |lacks| Coverage::Partial(lacks.to_owned())),
            None => {
                let said = |(name, reason): &(&str, String)| match *name {
                    ALL => reason.clone(),
                    name => format!("{name}: {reason}"),
                };
                let refused: Vec<String> = self.refused.iter().map(said).collect();
                Coverage::Off(refused.join("; "))
            }
        };
        self.wanted.then_some(SignalState {
            signal: self.signal,
            coverage,
        })
    }
}

/// Coverage of the signals of hooks; without the first, which is the agent's own for new processes.
pub fn states(hooks: &[HookState]) -> impl Iterator<Item = SignalState> {
    hooks.iter().skip(1).filter_map(HookState::coverage)
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the kernel refused to load eBPF programs ({0}): whywait needs root, or the capabilities BPF, PERFMON and \
         SYS_PTRACE"
    )]
    NoPrivilege(String),
    #[error("cannot load the eBPF object: {0}")]
    Object(#[from] EbpfError),
    #[error("cannot read the kernel's BTF: {0}")]
    Btf(#[from] aya::BtfError),
}

/// The object embedded in this binary, for this kernel's layout. Nothing is attached yet.
pub fn load(layout: &Layout, ring_bytes: u32, messages: KernelLog) -> Result<Ebpf, LoadError> {
    // Kernels before 5.11 charge maps to this limit; where it may not be raised, loading says so itself.
    let unlimited = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
    // A target takes some 20 descriptors: of a shell's usual 1024 there would soon be none left.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit {
        current: files.maximum,
        ..files
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, all);
    let level = messages.level();
    let mut loader = EbpfLoader::new();
    if messages == KernelLog::Off {
        // A ring buffer has no less.
        loader.map_max_entries("AYA_LOGS", rustix::param::page_size() as u32);
    }
    loader
        .override_global("KERNEL", bytemuck::bytes_of(layout), true)
        .override_global(aya_log::LEVEL, &level, true)
        .map_max_entries("EVENTS", ring_bytes)
        .map_max_entries("TARGET_INDEX", pid_max().div_ceil(PIDS_A_WORD))
        .load(OBJECT)
        .map_err(|error| {
            if is_permission(&error) {
                LoadError::NoPrivilege(chain(&error))
            } else {
                error.into()
            }
        })
}

/// One more than the highest pid of this host.
fn pid_max() -> u32 {
    procfs::sys::kernel::pid_max().map_or(PID_LIMIT, |max| max.unsigned_abs().clamp(1, PID_LIMIT))
}

/// Attaches each hook by the first alternative that the kernel permits, but for signals in `without` and those that are not
/// asked for in `with`.
pub fn attach(
    ebpf: &mut Ebpf,
    hooks: impl Iterator<Item = &'static Hook>,
    without: &[String],
    with: &[String],
) -> Result<Vec<HookState>, LoadError> {
    let btf = Btf::from_sys_fs()?;
    let left_out = |hook: &Hook| {
        if without.iter().any(|name| name == hook.signal) {
            return Some(LEFT_OUT.to_owned());
        }
        let why = hook.asked?;
        let asked = with.iter().any(|name| name == hook.signal);
        (!asked).then(|| format!("only with --with {}: {why}", hook.signal))
    };
    let attach = |hook: &'static Hook| match left_out(hook) {
        Some(reason) => HookState {
            signal: hook.signal,
            wanted: hook.asked.is_none(),
            taken: None,
            lacks: None,
            refused: vec![(ALL, reason)],
            attached: None,
        },
        None => attach_hook(ebpf, &btf, hook),
    };
    Ok(hooks.map(attach).collect())
}

fn attach_hook(ebpf: &mut Ebpf, btf: &Btf, hook: &'static Hook) -> HookState {
    let mut state = HookState {
        signal: hook.signal,
        wanted: true,
        taken: None,
        lacks: None,
        refused: Vec::new(),
        attached: None,
    };
    for alternative in hook.alternatives {
        let outcome: Result<Vec<HookLink>, String> = alternative
            .programs
            .iter()
            .map(|program| load_program(ebpf, btf, *program).and_then(|()| attach_program(ebpf, *program)))
            .collect();
        match outcome {
            Ok(links) => {
                state.taken = Some(alternative.name);
                state.lacks = alternative.without_ipv6.filter(|_| Path::new(IPV6).exists());
                if hook.windowed {
                    let signal = hook.signal;
                    state.attached = Some(AttachedHook { signal, links });
                }
                break;
            }
            Err(reason) => {
                for (name, _) in alternative.programs {
                    unload_program(ebpf, name);
                }
                state.refused.push((alternative.name, reason));
            }
        }
    }
    state
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, String> {
    ebpf.program_mut(name)
        .ok_or_else(|| format!("program {name} is not in the object"))
}

fn load_program(ebpf: &mut Ebpf, btf: &Btf, (name, point): HookProgram) -> Result<(), String> {
    let program = program(ebpf, name)?;
    let outcome = match point {
        Point::TpBtf(tracepoint) => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.load(tracepoint, btf))
        }
        Point::FExit(function) => <&mut FExit>::try_from(program).and_then(|program| program.load(function, btf)),
    };
    outcome.map_err(|error| chain(&error))
}

/// Attaches a hook again. Where one of its programs is refused the others come off: half of them would count nonsense.
pub fn attach_again(ebpf: &mut Ebpf, hook: DetachedHook) -> Result<AttachedHook, (DetachedHook, String)> {
    let DetachedHook { signal, programs } = hook;
    let mut links = Vec::new();
    for program in &programs {
        match attach_program(ebpf, *program) {
            Ok(link) => links.push(link),
            Err(reason) => {
                for link in links {
                    detach_program(ebpf, link);
                }
                return Err((DetachedHook { signal, programs }, reason));
            }
        }
    }
    Ok(AttachedHook { signal, links })
}

/// Detaches a hook, whose programs stay loaded.
pub fn detach(ebpf: &mut Ebpf, hook: AttachedHook) -> DetachedHook {
    let AttachedHook { signal, links } = hook;
    DetachedHook {
        signal,
        programs: links.into_iter().map(|link| detach_program(ebpf, link)).collect(),
    }
}

/// Attaches a program that is loaded.
fn attach_program(ebpf: &mut Ebpf, hook: HookProgram) -> Result<HookLink, String> {
    let (name, point) = hook;
    let loaded = program(ebpf, name)?;
    let id = match point {
        Point::TpBtf(_) => <&mut BtfTracePoint>::try_from(loaded)
            .and_then(BtfTracePoint::attach)
            .map(LinkId::TpBtf),
        Point::FExit(_) => <&mut FExit>::try_from(loaded)
            .and_then(FExit::attach)
            .map(LinkId::FExit),
    };
    id.map(|id| HookLink { program: hook, id })
        .map_err(|error| format!("{name}: {}", chain(&error)))
}

/// Detaches a program, which stays loaded, and gives it back.
fn detach_program(ebpf: &mut Ebpf, link: HookLink) -> HookProgram {
    let HookLink { program, id } = link;
    let outcome = match (ebpf.program_mut(program.0), id) {
        (Some(Program::BtfTracePoint(loaded)), LinkId::TpBtf(id)) => loaded.detach(id),
        (Some(Program::FExit(loaded)), LinkId::FExit(id)) => loaded.detach(id),
        _ => Ok(()),
    };
    if let Err(error) = outcome {
        log::warn!("cannot detach {}: {}", program.0, chain(&error));
    }
    program
}

fn unload_program(ebpf: &mut Ebpf, name: &str) {
    // Unloading drops the program's links; one that was never loaded has none, and says so.
    let _: Result<(), ProgramError> = match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        _ => return,
    };
}

fn is_permission(error: &EbpfError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        source = current.source();
    }
    false
}

/// An error with its causes on one line; the verifier's log goes to the debug log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let whole = causes(error);
    let brief = whole
        .split("Verifier output:")
        .next()
        .unwrap_or_default()
        .trim_end_matches([' ', '.'])
        .to_owned();
    if brief.len() < whole.len() {
        log::debug!("{whole}");
    }
    brief
}

/// The kernel side, built from `agent-ebpf` by build.rs.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/whywait-ebpf"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_alternative_lacks_is_said() {
        let state = |taken, lacks| HookState {
            signal: "net.request",
            wanted: true,
            taken,
            lacks,
            refused: vec![("first", "no such function".to_owned())],
            attached: None,
        };
        let check = |state: HookState, expected| assert_eq!(state.coverage().unwrap().coverage, expected);
        check(state(Some("second"), None), Coverage::Full);
        let lacks = "requests over IPv6 are not observed";
        check(state(Some("second"), Some(lacks)), Coverage::Partial(lacks.to_owned()));
        check(state(None, None), Coverage::Off("first: no such function".to_owned()));
    }
}
