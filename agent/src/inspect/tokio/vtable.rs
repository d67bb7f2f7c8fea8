//! Task vtables: one per type of task, found as data, verified word by word.
//!
//! tokio 1.54, runtime/task/raw.rs, `Vtable`: poll, schedule, dealloc, try_read_output, drop_join_handle_slow,
//! drop_abort_handle, shutdown, trailer_offset, scheduler_offset, id_offset (with tokio_unstable one more).

use std::collections::{BTreeSet, HashSet};

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::evidence;
use super::hooks::TokioHook;
use super::names::{self, FutureName, TaskKind};
use super::symbols::{Symbols, call_target};
use crate::inspect::elf::Binary;

/// One type of task. Its address is what a task's header points to, so it identifies the type at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskVtable {
    /// Link-time address.
    pub vaddr: u64,
    /// Link-time address of its `raw::poll`; types may share one.
    pub poll: u64,
    /// Link-time address of its `raw::schedule`.
    pub schedule: u64,
    pub future: FutureName,
    pub kind: TaskKind,
    /// The scheduler's type, such as `alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle>`.
    pub scheduler: Option<String>,
    /// Its polls pass [`TokioHook::PollBegin`]'s functions; false where they were inlined into this type's own poll function,
    /// which is a site of that hook then.
    pub calls_poll_begin: bool,
    /// Its polls pass the functions of the two hooks for their end; where they don't, a poll's end isn't seen.
    pub calls_poll_end: bool,
    /// Bytes from the task's header to its `task::Id` (u64).
    pub id_offset: u64,
    /// Bytes from the task's header to the scheduler handle.
    pub scheduler_offset: u64,
}

/// Offsets in the header that every task begins with (runtime/task/core.rs, `Header`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLayout {
    /// Bytes from the header to the pointer to its vtable; read off the code of `raw::schedule`, which loads that pointer and
    /// then the word [`SCHEDULER_WORD`](Self::SCHEDULER_WORD) of what it points to.
    pub vtable_offset: u64,
}

impl HeaderLayout {
    /// Index of `scheduler_offset` among a vtable's 8-byte words.
    pub const SCHEDULER_WORD: u64 = 8;
    /// Index of `id_offset` among a vtable's 8-byte words.
    pub const ID_WORD: u64 = 9;
}

const RAW: &str = "tokio::runtime::task::raw::";
const FUNCTIONS: [&str; 7] = [
    "poll",
    "schedule",
    "dealloc",
    "try_read_output",
    "drop_join_handle_slow",
    "drop_abort_handle",
    "shutdown",
];
/// A future larger than this doesn't fit into anybody's memory.
const MAX_OFFSET: u64 = 1 << 32;
/// Types of tasks of one program, and places that look like one: the largest known have some hundred.
pub(super) const MAX_VTABLES: usize = 2048;
pub(super) const MAX_PLACES: usize = 1 << 16;

/// All task vtables of the binary, and how many places looked like one but weren't.
pub(super) fn find(binary: &Binary<'_>, symbols: &Symbols) -> (Vec<TaskVtable>, usize) {
    let polls: HashSet<u64> = symbols
        .matching(|n| names::is(n, &raw("poll")))
        .map(|(vaddr, ..)| vaddr)
        .collect();
    let mut places: BTreeSet<u64> = binary.pointers_to(&polls).take(MAX_PLACES).collect();
    // Most words of the constants, such as a program's assets, are far from any function.
    let (first, last) = (polls.iter().min().copied(), polls.iter().max().copied());
    let polled = first.unwrap_or(u64::MAX)..=last.unwrap_or(0);
    for section in [".data.rel.ro", ".rodata"] {
        binary.scan(section, 0, |start, data| {
            for (i, word) in data.as_chunks::<8>().0.iter().enumerate() {
                let word = u64::from_le_bytes(*word);
                if polled.contains(&word) && polls.contains(&word) && places.len() < MAX_PLACES {
                    places.insert(start.saturating_add(i as u64 * 8));
                }
            }
            None::<()>
        });
    }
    let verified: Vec<(u64, [u64; 10])> = places
        .iter()
        .filter_map(|vaddr| Some((*vaddr, verify(binary, symbols, *vaddr)?)))
        .take(MAX_VTABLES)
        .collect();
    let rejected = places.len() - verified.len();
    let evidence = verified
        .iter()
        .map(|(vaddr, words)| (*vaddr, evidence::collect(binary, symbols, words)))
        .collect();
    let mut named = evidence::assign(evidence);
    let vtables = verified.into_iter().map(|(vaddr, words)| {
        let (future, kind, scheduler) = named.remove(&vaddr).unwrap_or((FutureName::Unknown, None, None));
        let kind = kind.unwrap_or_else(|| kind_of(binary, symbols, words[1]));
        TaskVtable {
            vaddr,
            poll: words[0],
            schedule: words[1],
            calls_poll_begin: symbols.reaches(binary, words[0], |n| TokioHook::PollBegin.is(n)),
            calls_poll_end: ends(kind)
                .iter()
                .all(|hook| symbols.reaches(binary, words[0], |n| hook.is(n))),
            future,
            kind,
            scheduler,
            id_offset: words[9],
            scheduler_offset: words[8],
        }
    });
    (vtables.collect(), rejected)
}

/// The header's layout, from the `raw::schedule` of some vtable.
pub(super) fn header_layout(binary: &Binary<'_>, symbols: &Symbols) -> Option<HeaderLayout> {
    let mut schedules = symbols.matching(|n| names::is(n, &raw("schedule")));
    schedules.find_map(|(vaddr, ..)| vtable_load(&symbols.instructions(binary, vaddr)))
}

fn raw(function: &str) -> String {
    format!("{RAW}{function}")
}

/// A blocking task is never pending.
fn ends(kind: TaskKind) -> &'static [TokioHook] {
    match kind {
        TaskKind::Async => &[TokioHook::PollEndPending, TokioHook::PollEndComplete],
        TaskKind::Blocking => &[TokioHook::PollEndComplete],
    }
}

/// The ten words, if the functions are what their places demand and the offsets make sense.
fn verify(binary: &Binary<'_>, symbols: &Symbols, vaddr: u64) -> Option<[u64; 10]> {
    let mut words = [0; 10];
    for (i, word) in words.iter_mut().enumerate() {
        *word = binary.pointer(vaddr.checked_add(i as u64 * 8)?)?;
    }
    let named = FUNCTIONS
        .iter()
        .zip(words)
        .filter(|(function, word)| symbols.is_named(*word, |name| names::is(name, &raw(function))));
    // A merged function may bear only another's name: two of seven may.
    let functions = named.count() >= FUNCTIONS.len() - 2 && words[..7].iter().all(|word| binary.is_code(*word));
    (functions && has_offsets(&words)).then_some(words)
}

/// Whether the last three words of a vtable are offsets in a task.
pub(super) fn has_offsets([.., trailer, scheduler, id]: &[u64; 10]) -> bool {
    *trailer < MAX_OFFSET
        && (0x18..*trailer).contains(scheduler)
        && (*scheduler..*trailer).contains(id)
        && id.is_multiple_of(8)
}

/// `mov a, [header+D]` … `[a+0x40]`: D, where header is rdi or a copy of it.
pub(super) fn vtable_load(code: &[Instruction]) -> Option<HeaderLayout> {
    let mut copies = vec![Register::RDI];
    let mut loaded: Option<(Register, u64)> = None;
    for i in code.iter().take(16) {
        let memory = i.op1_kind() == OpKind::Memory && i.memory_index() == Register::None;
        if let Some((register, offset)) = loaded
            && memory
            && i.memory_base() == register
            && i.memory_displacement64() == HeaderLayout::SCHEDULER_WORD * 8
        {
            return Some(HeaderLayout { vtable_offset: offset });
        }
        if i.mnemonic() != Mnemonic::Mov {
            continue;
        }
        if memory && copies.contains(&i.memory_base()) {
            loaded = Some((i.op0_register(), i.memory_displacement64()));
        } else if i.op0_kind() == OpKind::Register
            && i.op1_kind() == OpKind::Register
            && copies.contains(&i.op1_register())
        {
            copies.push(i.op0_register());
        }
    }
    None
}

/// By the scheduler that `raw::schedule` calls, when no name says it.
fn kind_of(binary: &Binary<'_>, symbols: &Symbols, schedule: u64) -> TaskKind {
    let blocking = symbols
        .instructions(binary, schedule)
        .iter()
        .filter_map(|i| call_target(binary, i))
        .any(|target| symbols.is_named(target, |n| n.contains("BlockingSchedule")));
    if blocking { TaskKind::Blocking } else { TaskKind::Async }
}
