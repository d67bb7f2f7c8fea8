//! Which type a task vtable belongs to: told from the names of the functions that its own functions call.
//!
//! With the v0 mangling the poll function's name says it. The legacy mangling leaves generic arguments out, but the
//! `drop_in_place` of the task's memory, `Cell<F, S>`, has its type in its name, and several functions of the vtable call it.
//! LLVM merges functions of equal code, so a call may lead to another type's: names are assigned so that no two vtables get
//! the same type, and what stays open is said to be open.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::names::{self, Cell, FutureName, TaskKind};
use super::symbols::{HARNESS, Symbols, call_target};
use crate::inspect::elf::Binary;

/// How many functions are read to name one type.
const MAX_VISITED: usize = 48;
/// How many types one vtable may be.
const MAX_CELLS: usize = 256;

/// What the functions of one vtable say about its type.
#[derive(Default)]
pub(super) struct Evidence {
    /// Named by a v0 symbol of the poll function itself.
    own: BTreeSet<Cell>,
    /// For each function called that drops a whole cell, the types it may be for. Merged functions may show a wrong one.
    cells: Vec<BTreeSet<Cell>>,
    /// Futures in the names of functions that drop a stage: the weakest sign, as stages are merged most often.
    stages: BTreeSet<String>,
}

pub(super) fn collect(binary: &Binary<'_>, symbols: &Symbols, words: &[u64; 10]) -> Evidence {
    let mut found = Evidence::default();
    if let Some(poll) = symbols.at(words[0]) {
        found
            .own
            .extend(poll.names.iter().filter_map(|n| names::polled_cell(n)));
    }
    let mut queue: VecDeque<u64> = [words[2], words[0], words[6], words[4]].into();
    let mut seen: HashSet<u64> = queue.iter().copied().collect();
    while let Some(vaddr) = queue.pop_front() {
        for target in symbols
            .instructions(binary, vaddr)
            .iter()
            .filter_map(|i| call_target(binary, i))
        {
            if seen.len() > MAX_VISITED || !seen.insert(target) {
                continue;
            }
            let Some(function) = symbols.at(target) else {
                continue;
            };
            let cells: BTreeSet<Cell> = function.names.iter().filter_map(|n| names::dropped_cell(n)).collect();
            found
                .stages
                .extend(function.names.iter().filter_map(|n| names::dropped_stage(n)));
            if !cells.is_empty() {
                found.cells.push(cells);
            } else if function.names.iter().any(|n| n.starts_with(HARNESS)) {
                queue.push_back(target);
            }
        }
    }
    found
}

pub(super) type Named = (FutureName, Option<TaskKind>, Option<String>);

/// Gives each vtable its type. A `Cell<F, S>` belongs to exactly one vtable, so a type that is certain for one can't be
/// another's: that resolves most of what merging blurs.
pub(super) fn assign(evidence: BTreeMap<u64, Evidence>) -> BTreeMap<u64, Named> {
    let candidates: BTreeMap<u64, BTreeSet<&Cell>> = evidence
        .iter()
        .map(|(vaddr, e)| {
            let own = !e.own.is_empty();
            let all = e.cells.iter().flatten().filter(|_| !own);
            (*vaddr, all.chain(&e.own).take(MAX_CELLS).collect())
        })
        .collect();
    // By number, in the order of the types themselves: they are compared for every vtable, for every vtable.
    let known: BTreeSet<&Cell> = candidates.values().flatten().copied().collect();
    let known: Vec<&Cell> = known.into_iter().collect();
    let number = |cell: &&Cell| known.binary_search(cell).ok();
    let mut open: BTreeMap<u64, BTreeSet<usize>> = candidates
        .iter()
        .map(|(vaddr, cells)| (*vaddr, cells.iter().filter_map(number).collect()))
        .collect();
    let mut certain: BTreeMap<u64, usize> = BTreeMap::new();
    loop {
        let sole = |cells: &BTreeSet<usize>| cells.first().copied().filter(|_| cells.len() == 1);
        // How many vtables have a type among theirs, and how many have nothing else.
        let (mut claims, mut soles) = (vec![0u32; known.len()], vec![0u32; known.len()]);
        for cells in open.values() {
            cells.iter().for_each(|cell| claims[*cell] += 1);
            sole(cells).into_iter().for_each(|cell| soles[cell] += 1);
        }
        let unique = open
            .iter()
            .find_map(|(vaddr, cells)| Some((*vaddr, sole(cells).filter(|c| claims[*c] == 1)?)));
        // Among several, one that nobody else could be.
        let exclusive = || {
            open.iter().find_map(|(vaddr, cells)| {
                let mut own = cells.iter().filter(|c| claims[**c] == 1);
                let first = own.next()?;
                own.next().is_none().then_some((*vaddr, *first))
            })
        };
        // One candidate, which others have only as one among several.
        let settled = || {
            let one = |cells| sole(cells).filter(|cell| soles[*cell] == 1);
            open.iter().find_map(|(vaddr, cells)| Some((*vaddr, one(cells)?)))
        };
        let Some((vaddr, cell)) = unique.or_else(exclusive).or_else(settled) else {
            break;
        };
        open.remove(&vaddr);
        open.values_mut().for_each(|cells| {
            cells.remove(&cell);
        });
        certain.insert(vaddr, cell);
    }
    let blurred = open.into_iter().map(|(vaddr, cells)| {
        let cells: Vec<&Cell> = cells.into_iter().map(|cell| known[cell]).collect();
        let stages = evidence
            .get(&vaddr)
            .map(|e| e.stages.iter().cloned().collect::<Vec<_>>())
            .unwrap_or_default();
        let names = if cells.is_empty() {
            stages
        } else {
            names::futures(cells.iter().copied())
        };
        let same = |of: fn(&Cell) -> String| -> Option<String> {
            let values: BTreeSet<String> = cells.iter().copied().map(of).collect();
            values.first().filter(|_| values.len() == 1).cloned()
        };
        let kind = cells
            .first()
            .map(|c| c.kind)
            .filter(|kind| cells.iter().all(|c| c.kind == *kind));
        let name = if names.is_empty() {
            FutureName::Unknown
        } else {
            FutureName::OneOf(names)
        };
        (vaddr, (name, kind, same(|c| c.scheduler.clone())))
    });
    let named = certain.into_iter().map(|(vaddr, cell)| {
        let Cell {
            future,
            kind,
            scheduler,
        } = known[cell].clone();
        (vaddr, (FutureName::Known(future), Some(kind), Some(scheduler)))
    });
    named.chain(blurred).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(future: &str) -> Cell {
        Cell {
            future: future.into(),
            kind: TaskKind::Async,
            scheduler: "S".into(),
        }
    }

    /// Candidate futures of each vtable → their names.
    fn check(candidates: &[&[&str]], expected: &[&str]) {
        let evidence = candidates.iter().enumerate().map(|(i, names)| {
            (
                i as u64,
                Evidence {
                    cells: names.iter().map(|n| [cell(n)].into()).collect(),
                    ..Evidence::default()
                },
            )
        });
        let found: Vec<String> = assign(evidence.collect())
            .into_values()
            .map(|(name, ..)| name.to_string())
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn types_are_told_apart() {
        check(&[&["a"], &["b"]], &["a", "b"]);
        // b's poll was merged with a's, its dealloc wasn't
        check(&[&["a"], &["a", "b"]], &["a", "b"]);
        check(&[&["a", "b"], &["b", "c"], &["c"]], &["a", "b", "c"]);
        check(&[&[]], &["unknown"]);
        check(&[&["a", "b"], &["a", "b"]], &["a | b", "a | b"]);
    }

    #[test]
    fn two_types_of_one_name_are_not_passed_off_as_known() {
        let evidence = [0, 1].map(|i| {
            (
                i,
                Evidence {
                    cells: vec![[cell("a")].into()],
                    ..Evidence::default()
                },
            )
        });
        for (name, ..) in assign(evidence.into()).into_values() {
            assert_eq!(name, FutureName::OneOf(vec!["a".into()]));
        }
    }
}
