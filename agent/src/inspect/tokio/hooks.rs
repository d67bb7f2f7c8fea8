//! The tokio functions that are probed. What each means, and why: docs/design/tokio-hooks.md.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register};

use super::names::{self, TaskKind};
use super::symbols::{Symbols, call_target};
use super::vtable::TaskVtable;
use crate::inspect::SiteError;
use crate::inspect::args::{ArgLocation, Homes, X86Register};
use crate::inspect::elf::Binary;
use crate::inspect::site::{self, ProbeSite, SiteCost};

/// A point in the life of a task or of a worker. The argument of the site is the task's header where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokioHook {
    /// `State::transition_to_running`: a poll begins. One function for all types of tasks.
    PollBegin,
    /// `State::transition_to_idle`: the future returned Pending.
    PollEndPending,
    /// `State::transition_to_complete`: the future returned Ready, panicked or was cancelled.
    PollEndComplete,
    /// `<S as Schedule>::schedule`, one per scheduler: the task was notified and goes to a run queue.
    Schedule,
    /// `<Arc<multi_thread::Handle> as Schedule>::yield_now`: notified during its own poll.
    Yield,
    /// `OwnedTasks::bind_inner`: a new task, about to be scheduled for the first time.
    Spawn,
    /// `multi_thread::worker::Context::park_internal` and its like of current_thread: the worker looks for events and may sleep.
    Park,
}

/// Functions in which a worker looks for events, and what they are called in versions that haven't got them.
const PARK: [(&str, &[&str]); 2] = [
    (
        "multi_thread",
        &[
            "tokio::runtime::scheduler::multi_thread::worker::Context::park_internal",
            // Until tokio 1.48.
            "tokio::runtime::scheduler::multi_thread::worker::Context::park_timeout",
        ],
    ),
    (
        "current_thread",
        &["tokio::runtime::scheduler::current_thread::Context::park_internal"],
    ),
];
/// Until tokio 1.48 these two have no common inner function; later they call the one above.
const PARK_CURRENT_THREAD_OLD: [&str; 2] = [
    "tokio::runtime::scheduler::current_thread::Context::park",
    "tokio::runtime::scheduler::current_thread::Context::park_yield",
];

impl TokioHook {
    pub const ALL: [Self; 7] = [
        Self::PollBegin,
        Self::PollEndPending,
        Self::PollEndComplete,
        Self::Schedule,
        Self::Yield,
        Self::Spawn,
        Self::Park,
    ];

    /// The register that holds the task's header on entry.
    pub fn registers(self) -> &'static [X86Register] {
        match self {
            Self::PollBegin | Self::PollEndPending | Self::PollEndComplete => &[X86Register::Rdi],
            Self::Schedule | Self::Yield | Self::Spawn => &[X86Register::Rsi],
            Self::Park => &[],
        }
    }

    pub(super) fn is(self, name: &str) -> bool {
        const STATE: &str = "tokio::runtime::task::state::State::";
        let scheduler = |method: &str| {
            name.contains("tokio::runtime::task::Schedule")
                && name.ends_with(method)
                && !name.contains("BlockingSchedule")
        };
        match self {
            Self::PollBegin => name.strip_prefix(STATE) == Some("transition_to_running"),
            Self::PollEndPending => name.strip_prefix(STATE) == Some("transition_to_idle"),
            Self::PollEndComplete => name.strip_prefix(STATE) == Some("transition_to_complete"),
            // LocalSet's own spawns go past the trait, to Shared::schedule.
            Self::Schedule => scheduler(">::schedule") || name == "tokio::task::local::Shared::schedule",
            Self::Yield => scheduler(">::yield_now") && name.contains("multi_thread"),
            Self::Spawn => {
                name.starts_with("tokio::runtime::task::list::OwnedTasks<") && name.ends_with(">::bind_inner")
            }
            Self::Park => PARK.iter().any(|(_, methods)| methods.contains(&name)),
        }
    }

    fn described(self) -> &'static str {
        match self {
            Self::PollBegin => "tokio::runtime::task::state::State::transition_to_running",
            Self::PollEndPending => "tokio::runtime::task::state::State::transition_to_idle",
            Self::PollEndComplete => "tokio::runtime::task::state::State::transition_to_complete",
            Self::Schedule => "<_ as tokio::runtime::task::Schedule>::schedule",
            Self::Yield => "<Arc<multi_thread::Handle> as tokio::runtime::task::Schedule>::yield_now",
            Self::Spawn => "tokio::runtime::task::list::OwnedTasks<_>::bind_inner",
            Self::Park => "tokio::runtime::scheduler::{multi_thread::worker,current_thread}::Context::park_internal",
        }
    }
}

/// All sites of each hook; a hook without any function has one error.
pub(super) fn sites(
    binary: &Binary<'_>,
    symbols: &Symbols,
    vtables: &[TaskVtable],
) -> BTreeMap<TokioHook, Vec<Result<ProbeSite, SiteError>>> {
    let state_is_header = state_is_header(binary, symbols);
    let of = |hook: TokioHook| -> Vec<Result<ProbeSite, SiteError>> {
        let by_state = matches!(
            hook,
            TokioHook::PollBegin | TokioHook::PollEndPending | TokioHook::PollEndComplete
        );
        let found: Vec<(u64, &str)> = symbols
            .matching(|n| hook.is(n))
            .map(|(vaddr, _, name)| (vaddr, name))
            .collect();
        let mut sites: Vec<_> = found
            .iter()
            .map(|(vaddr, name)| match by_state && !state_is_header {
                true => Err(SiteError::NotProved {
                    function: (*name).to_owned(),
                    reason: "it isn't shown that a task's state stands at the start of its header".into(),
                }),
                false => symbols.site(binary, *vaddr, name, hook.registers()),
            })
            .collect();
        let others: Vec<u64> = match hook {
            // Inlined, for all types (fat LTO) or some (thin LTO; tokio's own closures on the blocking pool): their poll functions.
            TokioHook::PollBegin => distinct(vtables.iter().filter(|v| !v.calls_poll_begin).map(|v| v.poll)),
            // Inlined into raw::schedule<S>: where that calls none of the functions found.
            TokioHook::Schedule => {
                let seen = |s: &u64| calls_one_of(binary, symbols, *s, &found);
                let woken = vtables.iter().filter(|v| v.kind == TaskKind::Async);
                distinct(woken.map(|v| v.schedule).filter(|s| !seen(s)))
            }
            TokioHook::Park if !found.iter().any(|(_, name)| name.contains("current_thread")) => symbols
                .matching(|n| PARK_CURRENT_THREAD_OLD.contains(&n))
                .map(|(vaddr, ..)| vaddr)
                .collect(),
            _ => Vec::new(),
        };
        let header = if hook == TokioHook::Park {
            &[][..]
        } else {
            &[X86Register::Rdi]
        };
        sites.extend(others.into_iter().map(|vaddr| {
            let name = symbols.name(vaddr).unwrap_or("a task's function");
            match hook {
                TokioHook::Schedule => schedule_site(binary, symbols, vaddr, name),
                _ => symbols.site(binary, vaddr, name, header),
            }
        }));
        if sites.is_empty() {
            let candidates = vec![hook.described().into()];
            return vec![Err(SiteError::NoSuchFunction { candidates })];
        }
        sites
    };
    TokioHook::ALL.into_iter().map(|hook| (hook, of(hook))).collect()
}

/// Says of hooks without a function that they may well have one.
pub(super) fn without_names(hooks: &mut BTreeMap<TokioHook, Vec<Result<ProbeSite, SiteError>>>) {
    for (hook, sites) in hooks {
        for site in sites {
            if matches!(site, Err(SiteError::NoSuchFunction { .. })) {
                *site = Err(SiteError::NoNames {
                    function: hook.described().to_owned(),
                });
            }
        }
    }
}

/// The site in a `raw::schedule`, or in the scheduler's function that it ends in, where only that is cheap.
fn schedule_site(binary: &Binary<'_>, symbols: &Symbols, vaddr: u64, name: &str) -> Result<ProbeSite, SiteError> {
    let own = symbols.site(binary, vaddr, name, &[X86Register::Rdi]);
    let is_cheap = |site: &ProbeSite| site.cost == SiteCost::Emulated;
    if own.as_ref().is_ok_and(is_cheap) {
        return own;
    }
    let last = jumped_to(binary, symbols, vaddr).and_then(|(vaddr, header)| {
        let function = site::Function {
            name: symbols.name(vaddr).unwrap_or("a scheduler's function"),
            vaddr,
            size: symbols.size(binary, vaddr)?,
        };
        site::find_from(binary, &function, &[header]).ok()
    });
    last.filter(is_cheap).map_or(own, Ok)
}

/// The function that the one at `vaddr` ends in, with where the first argument of this is when that begins.
fn jumped_to(binary: &Binary<'_>, symbols: &Symbols, vaddr: u64) -> Option<(u64, ArgLocation)> {
    let mut info = InstructionInfoFactory::new();
    let mut header = Homes::on_entry(ArgLocation::Register(X86Register::Rdi));
    for instruction in symbols.instructions(binary, vaddr) {
        match instruction.flow_control() {
            FlowControl::Next => header.step(&instruction, &mut info),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                return Some((call_target(binary, &instruction)?, header.first()?));
            }
            _ => return None,
        }
    }
    None
}

fn distinct(addresses: impl Iterator<Item = u64>) -> Vec<u64> {
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}

fn calls_one_of(binary: &Binary<'_>, symbols: &Symbols, function: u64, wanted: &[(u64, &str)]) -> bool {
    let code = symbols.instructions(binary, function);
    let mut targets = code.iter().filter_map(|i| call_target(binary, i));
    targets.any(|target| wanted.iter().any(|(vaddr, _)| *vaddr == target))
}

/// Whether `raw::poll`, given the header in rdi, hands rdi on unchanged to `State::transition_to_running`: then `&State` and the
/// header are one address (runtime/task/core.rs: `Header` is repr(C), `state` its first field).
fn state_is_header(binary: &Binary<'_>, symbols: &Symbols) -> bool {
    let begins = |vaddr: u64| symbols.is_named(vaddr, |n| TokioHook::PollBegin.is(n));
    let mut polls = symbols.matching(|n| names::is(n, "tokio::runtime::task::raw::poll"));
    polls.any(|(vaddr, ..)| handed_on(binary, symbols, vaddr, 0).is_some_and(begins))
}

/// The function that is called first, with rdi as it was on entry.
fn handed_on(binary: &Binary<'_>, symbols: &Symbols, vaddr: u64, jumps: usize) -> Option<u64> {
    let mut info = InstructionInfoFactory::new();
    for instruction in symbols.instructions(binary, vaddr) {
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::UnconditionalBranch if jumps < 2 => {
                return handed_on(binary, symbols, call_target(binary, &instruction)?, jumps + 1);
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                return call_target(binary, &instruction);
            }
            _ => return None,
        }
        let writes = |access| {
            !matches!(
                access,
                OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None
            )
        };
        let used = info.info(&instruction).used_registers();
        if used
            .iter()
            .any(|u| u.register().full_register() == Register::RDI && writes(u.access()))
        {
            return None;
        }
    }
    None
}
