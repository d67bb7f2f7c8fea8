//! The Go functions that are probed, and what must be in registers there.

use std::collections::BTreeMap;

use agent_common::go::{assist::SLACK, latency::INLINE};

use super::super::SiteError;
use super::super::arch::Arch;
use super::super::args::ArgLocation;
use super::super::branch;
use super::super::elf::Binary;
use super::super::site::{self, Function, ProbeSite};
use super::pclntab::GoSymbolizer;

/// A point in the life of a goroutine, or of the GC. Arguments are in ABIInternal's order: AX, BX, CX; on arm64 R0, R1, R2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GoHook {
    /// runtime.execute(gp): this thread begins to run gp.
    Execute,
    /// runtime.runqput(pp, gp): gp became runnable and goes to pp's run queue.
    RunqPut,
    /// runtime.goschedImpl(gp): gp yields or is preempted, and stays runnable (global queue).
    Gosched,
    /// gp comes back from a system call and finds no P (global queue): exitsyscallNoP since go1.26, exitsyscall0 before.
    ExitSyscallNoP,
    /// runtime.netpollready(toRun, pd, mode): the goroutines that wait on pd become runnable.
    NetpollReady,
    /// runtime.injectglist(glist): a list of goroutines becomes runnable.
    InjectGlist,
    /// runtime.park_m(gp): gp waits from now on (gp.waitreason).
    Park,
    /// runtime.goexit0(gp): gp is over.
    Exit,
    /// runtime.prepareFreeWorkbufs(): called once a cycle by gcMarkTermination, after the world was started again and while
    /// runtime.work still holds the cycle's figures (and by gcSweep when GODEBUG=gcstoptheworld=2: read work.cycles).
    GcCycleEnd,
    /// runtime.startTheWorldWithSema(now, worldStop): a stop of the world is about to end. Its arguments since go1.22: now, and
    /// the worldStop's reason, startedStopping, finishedStopping, which are in AX, BX, CX and DI.
    StartWorld,
    /// runtime.gcstopm(): a P stops for a stop of the world; on the runtime's own stack.
    StopProcessor,
    /// In runtime.gcAssistAlloc1(gp, scanWork): an assist is over, and its time is part of p.gcAssistTime; on the runtime's own
    /// stack.
    AssistEnd,
    /// runtime.handoffp(pp): pp is taken from a thread, or given away by it; who does it is where it returns to.
    HandOff,
    /// runtime.(*timeHistogram).record(h, duration), which casgstatus calls for one start of a goroutine in eight; h is
    /// sched.timeToRun then. Before go1.20 the compiler has it inline: in casgstatus, with the duration in g.runnableTime.
    Latency,
}

/// Where scheduling latency is recorded.
const CASGSTATUS: &str = "runtime.casgstatus";

impl GoHook {
    pub const ALL: [Self; 14] = [
        Self::Execute,
        Self::RunqPut,
        Self::Gosched,
        Self::ExitSyscallNoP,
        Self::NetpollReady,
        Self::InjectGlist,
        Self::Park,
        Self::Exit,
        Self::GcCycleEnd,
        Self::StartWorld,
        Self::StopProcessor,
        Self::AssistEnd,
        Self::HandOff,
        Self::Latency,
    ];

    /// Functions, best first.
    pub fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::Execute => &["runtime.execute"],
            Self::RunqPut => &["runtime.runqput"],
            Self::Gosched => &["runtime.goschedImpl"],
            Self::ExitSyscallNoP => &["runtime.exitsyscallNoP", "runtime.exitsyscall0"],
            Self::NetpollReady => &["runtime.netpollready"],
            Self::InjectGlist => &["runtime.injectglist"],
            Self::Park => &["runtime.park_m"],
            Self::Exit => &["runtime.goexit0"],
            Self::GcCycleEnd => &["runtime.prepareFreeWorkbufs"],
            Self::StartWorld => &["runtime.startTheWorldWithSema"],
            Self::StopProcessor => &["runtime.gcstopm"],
            Self::AssistEnd => &["runtime.gcAssistAlloc1"],
            Self::HandOff => &["runtime.handoffp"],
            Self::Latency => &["runtime.(*timeHistogram).record", CASGSTATUS],
        }
    }

    /// How many arguments, from the first, must still be in their registers at the site.
    pub fn arguments(self) -> usize {
        match self {
            Self::Execute | Self::Gosched | Self::ExitSyscallNoP | Self::InjectGlist | Self::Park | Self::Exit => 1,
            Self::RunqPut | Self::Latency => 2,
            Self::NetpollReady => 3,
            Self::GcCycleEnd | Self::StopProcessor | Self::AssistEnd | Self::HandOff => 0,
            Self::StartWorld => 4,
        }
    }

    /// What must still be to be had at the site, by where it is on entry.
    pub fn needed(self, arch: Arch) -> Vec<ArgLocation> {
        match self {
            Self::HandOff => vec![arch.return_address()],
            hook => arch.go_arguments()[..hook.arguments()].to_vec(),
        }
    }
}

pub(super) fn sites(
    binary: &Binary<'_>,
    arch: Arch,
    symbols: &GoSymbolizer,
) -> BTreeMap<GoHook, Result<ProbeSite, SiteError>> {
    let wanted: Vec<&str> = GoHook::ALL.iter().flat_map(|h| h.candidates()).copied().collect();
    let found = symbols.functions_named(&binary.file, &wanted);
    let single = |name: &str| match found.get(name).map(Vec::as_slice) {
        Some([range]) => Some(range.clone()),
        _ => None,
    };
    let site = |hook: GoHook| {
        let present = hook
            .candidates()
            .iter()
            .find_map(|name| found.get(name).map(|ranges| (*name, ranges)));
        let (name, ranges) = present.ok_or_else(|| SiteError::NoSuchFunction {
            candidates: hook.candidates().iter().map(|s| (*s).to_owned()).collect(),
        })?;
        // An ABI0 wrapper has the same name; which of the two is called isn't known.
        let [range] = ranges.as_slice() else {
            return Err(SiteError::Ambiguous {
                function: name.into(),
                count: ranges.len(),
            });
        };
        let function = Function {
            name,
            vaddr: range.start,
            size: range.end - range.start,
        };
        match hook {
            GoHook::AssistEnd => branch::find(binary, arch, &function, SLACK as u16),
            GoHook::Latency if name == CASGSTATUS => branch::find(binary, arch, &function, INLINE),
            GoHook::Latency => {
                // With profile-guided optimisation it may be inline too, while others call it.
                let caller = single(CASGSTATUS).filter(|caller| branch::calls(binary, arch, caller, function.vaddr));
                caller.ok_or_else(|| SiteError::NotProved {
                    function: name.into(),
                    reason: format!("{CASGSTATUS} does not call it"),
                })?;
                site::find_in_go(binary, arch, &function, &hook.needed(arch))
            }
            _ => site::find_in_go(binary, arch, &function, &hook.needed(arch)),
        }
    };
    GoHook::ALL.into_iter().map(|hook| (hook, site(hook))).collect()
}
