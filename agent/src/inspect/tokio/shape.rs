//! Task vtables of a binary without symbols: by their shape, and by the code of `raw::schedule`.
//!
//! Seven pointers to functions in a row, behind which are three offsets, in order: found nowhere else in executables of 1 to 100 MB. `raw::schedule` of
//! a future loads the vtable from the header, and the scheduler's offset from that; of a closure on the blocking pool it ends in a function that only panics
//! (tokio 1.54, runtime/task/raw.rs; runtime/blocking/schedule.rs).

use std::collections::BTreeMap;

use iced_x86::{FlowControl, Instruction};

use super::Found;
use super::locations::Locations;
use super::names::{FutureName, TaskKind};
use super::symbols::{Symbols, call_target};
use super::vtable::{HeaderLayout, MAX_PLACES, MAX_VTABLES, TaskVtable, has_offsets, vtable_load};
use crate::inspect::elf::{Binary, ElfKind};

/// Words of a vtable that are looked at, and those that are functions.
const WORDS: usize = 10;
const FUNCTIONS: usize = 7;
/// Jumps from `raw::schedule` to the scheduler.
const MAX_JUMPS: usize = 3;

/// All task vtables; None where no future's is among them, by which the header is known. Rejected are places of the shape whose code is not as known.
pub(super) fn find(binary: &Binary<'_>, symbols: &Symbols) -> Option<Found> {
    let places = places(binary);
    let proved: Vec<_> = places
        .iter()
        .filter_map(|(vaddr, words)| Some((*vaddr, *words, proof(binary, symbols, words[1])?)))
        .take(MAX_VTABLES)
        .collect();
    // One program has one layout of the header, or two of tokio's versions that agree.
    let mut layouts: BTreeMap<u64, usize> = BTreeMap::new();
    for layout in proved.iter().filter_map(|(.., (layout, _))| *layout) {
        *layouts.entry(layout.vtable_offset).or_default() += 1;
    }
    let most = layouts.into_iter().max_by_key(|(_, count)| *count);
    let (vtable_offset, _) = most?;
    let header = HeaderLayout { vtable_offset };
    let mut locations = Locations::new(binary, symbols);
    let vtables: Vec<TaskVtable> = proved
        .into_iter()
        .filter(|(.., (layout, _))| layout.is_none_or(|layout| layout == header))
        .map(|(vaddr, words, (_, kind))| TaskVtable {
            vaddr,
            poll: words[0],
            schedule: words[1],
            future: match kind {
                TaskKind::Async => locations.name(words[0], vaddr),
                TaskKind::Blocking => FutureName::Known(format!("blocking closure {vaddr:#x}")),
            },
            kind,
            scheduler: None,
            calls_poll_begin: false,
            calls_poll_end: false,
            id_offset: words[9],
            scheduler_offset: words[8],
        })
        .collect();
    Some(Found {
        rejected: places.len() - vtables.len(),
        vtables,
        header,
    })
}

/// Places of this shape, with their words.
fn places(binary: &Binary<'_>) -> Vec<(u64, [u64; WORDS])> {
    let sections: &[&str] = match binary.facts.kind {
        ElfKind::Pie => &[".data.rel.ro"],
        // What needs no relocation may be a constant.
        ElfKind::Exec => &[".data.rel.ro", ".rodata"],
    };
    let mut places = Vec::new();
    for section in sections {
        let mut run = 0;
        binary.scan(section, 0, |start, data| {
            for (i, raw) in data.as_chunks::<8>().0.iter().enumerate() {
                let at = start.checked_add(i as u64 * 8)?;
                let pointer = match binary.relocation(at) {
                    Some(_) => binary.pointer(at),
                    None => Some(u64::from_le_bytes(*raw)),
                };
                if pointer.is_some_and(|pointer| binary.is_code(pointer)) {
                    run += 1;
                    continue;
                }
                if std::mem::take(&mut run) >= FUNCTIONS
                    && let Some(place) = at.checked_sub(FUNCTIONS as u64 * 8)
                    && let Some(words) = words(binary, place)
                    && places.len() < MAX_PLACES
                {
                    places.push((place, words));
                }
            }
            None::<()>
        });
    }
    places
}

/// The words of a vtable at `place`, if its offsets are ones.
fn words(binary: &Binary<'_>, place: u64) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    for (i, word) in words.iter_mut().enumerate() {
        let at = place.checked_add(i as u64 * 8)?;
        *word = binary.pointer(at)?;
        if i >= FUNCTIONS && binary.relocation(at).is_some() {
            return None;
        }
    }
    has_offsets(&words).then_some(words)
}

/// What the code of a `raw::schedule` shows: the header's layout, unless it is not used there, and the kind of task. None where it is no such function.
fn proof(binary: &Binary<'_>, symbols: &Symbols, schedule: u64) -> Option<(Option<HeaderLayout>, TaskKind)> {
    let code = symbols.instructions(binary, schedule);
    let layout = vtable_load(&code);
    let blocking = only_panics(binary, symbols, schedule, 0);
    match (layout, blocking) {
        (None, false) => None,
        (layout, true) => Some((layout, TaskKind::Blocking)),
        (layout, false) => Some((layout, TaskKind::Async)),
    }
}

/// Whether a function, or one that it ends in, calls something and never returns.
fn only_panics(binary: &Binary<'_>, symbols: &Symbols, vaddr: u64, jumps: usize) -> bool {
    if symbols.size(binary, vaddr).is_none() {
        return false;
    }
    let code = symbols.instructions(binary, vaddr);
    let inside = |target: u64| code.iter().any(|i| i.ip() == target);
    let leaves = |i: &&Instruction| match i.flow_control() {
        FlowControl::Return | FlowControl::IndirectBranch => true,
        FlowControl::UnconditionalBranch => !inside(i.near_branch_target()),
        _ => false,
    };
    match code.iter().find(leaves) {
        None => code
            .iter()
            .any(|i| matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall)),
        Some(jump) if jumps < MAX_JUMPS => {
            call_target(binary, jump).is_some_and(|target| only_panics(binary, symbols, target, jumps + 1))
        }
        Some(_) => false,
    }
}
