//! Names of futures without symbols: where in the source they are.
//!
//! A coroutine that is polled after it has returned, or panicked, panics with its own place (`core::panic::Location`), which its code passes to the function of the
//! message (rustc 1.95, library/core/src/panicking.rs, panic_const). One that never returns has the second only, and with `panic = "abort"` there is the first only.

use std::collections::{BTreeSet, HashMap};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use memchr::memmem;

use super::names::FutureName;
use super::symbols::{Symbols, call_target};
use crate::inspect::elf::Binary;

const MESSAGES: [&[u8]; 2] = [
    b"`async fn` resumed after completion",
    b"`async fn` resumed after panicking",
];
/// Functions that are read to name one type.
const MAX_VISITED: usize = 64;
/// Levels of calls that are followed: raw::poll, Harness::poll, poll_future, a closure of it, and the future's own.
const MAX_DEPTH: usize = 5;
/// Places of one type that are shown.
const MAX_NAMES: usize = 4;
/// Bytes of the path of a source file.
const MAX_PATH: u64 = 512;
/// Between an argument and its call.
const NEAR: usize = 4;

/// Finds where futures are in the source.
pub(super) struct Locations<'b, 'a> {
    binary: &'b Binary<'a>,
    symbols: &'b Symbols,
    /// Addresses of the messages.
    messages: Vec<u64>,
    /// Whether functions are those of the messages.
    known: HashMap<u64, bool>,
}

impl<'b, 'a> Locations<'b, 'a> {
    pub(super) fn new(binary: &'b Binary<'a>, symbols: &'b Symbols) -> Self {
        let find = |message: &[u8]| {
            let finder = memmem::Finder::new(message);
            binary.scan(".rodata", message.len(), |start, data| {
                start.checked_add(finder.find(data)? as u64)
            })
        };
        let messages = MESSAGES.iter().filter_map(|message| find(message)).collect();
        Self {
            binary,
            symbols,
            messages,
            known: HashMap::new(),
        }
    }

    /// The name of the future that `poll` polls, whose task's vtable is at `vaddr`.
    pub(super) fn name(&mut self, poll: u64, vaddr: u64) -> FutureName {
        let mut found: Vec<String> = self.places(poll).into_iter().collect();
        match found.len() {
            0 => FutureName::Known(format!("task type {vaddr:#x}")),
            1 => FutureName::Known(found.remove(0)),
            _ => {
                found.truncate(MAX_NAMES);
                FutureName::OneOf(found)
            }
        }
    }

    /// Places of the coroutines in the functions that are as few calls from `poll` as any that has one: the future's own, and those that the compiler put
    /// into it. Of these, the program's own before those of libraries.
    fn places(&mut self, poll: u64) -> BTreeSet<String> {
        let (mut level, mut visited) = (vec![poll], BTreeSet::from([poll]));
        for _ in 0..=MAX_DEPTH {
            let (mut found, mut next) = (BTreeSet::new(), Vec::new());
            for function in level {
                let code = self.symbols.instructions(self.binary, function);
                found.extend(self.passed(&code));
                for target in code.iter().filter_map(|i| call_target(self.binary, i)) {
                    if visited.len() < MAX_VISITED && self.binary.is_code(target) && visited.insert(target) {
                        next.push(target);
                    }
                }
            }
            if let Some((first, _)) = found.first().cloned() {
                let nearest = found.into_iter().filter(|(is_library, _)| *is_library == first);
                return nearest.map(|(_, place)| place).collect();
            }
            level = next;
        }
        BTreeSet::new()
    }

    /// Places that `code` passes to the functions of the messages: whether each is a library's, and the place.
    fn passed(&mut self, code: &[Instruction]) -> Vec<(bool, String)> {
        let mut found = Vec::new();
        for (at, call) in code.iter().enumerate() {
            if !matches!(call.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
                continue;
            }
            let before = &code[at.saturating_sub(NEAR)..at];
            let is_first = |i: &&Instruction| i.op0_register().full_register() == Register::RDI;
            let argument = before.iter().rev().find(is_first).and_then(address);
            let Some(place) = argument.and_then(|address| self.location(address)) else {
                continue;
            };
            if call_target(self.binary, call).is_some_and(|target| self.is_message(target)) {
                found.push(place);
            }
        }
        found
    }

    /// Whether a function refers to one of the messages, itself or by a list of pieces.
    fn is_message(&mut self, function: u64) -> bool {
        let (binary, symbols, messages) = (self.binary, self.symbols, &self.messages);
        *self.known.entry(function).or_insert_with(|| {
            let code = symbols.instructions(binary, function);
            let is_one = |address: u64| messages.contains(&address);
            let refers = |address: u64| is_one(address) || binary.pointer(address).is_some_and(is_one);
            code.iter().filter_map(address).any(refers)
        })
    }

    /// The place in the source that a `Location` at this address is.
    fn location(&self, address: u64) -> Option<(bool, String)> {
        let long = |at: u64| self.binary.word(address.checked_add(at)?);
        let (path, length, line_and_column) = (self.binary.pointer(address)?, long(8)?, long(16)?);
        let path = self
            .binary
            .read(path, Some(length).filter(|length| (1..MAX_PATH).contains(length))?)?;
        let path = String::from_utf8(path).ok().filter(|path| path.ends_with(".rs"))?;
        let (line, column) = (line_and_column as u32, (line_and_column >> 32) as u32);
        let (is_library, path) = short(&path);
        (line > 0 && column > 0).then(|| (is_library, format!("{path}:{line}:{column}")))
    }
}

/// The constant address that an instruction puts into a register: `lea register, [rip+address]`; in executables that are not moved also
/// `mov register, address`.
fn address(i: &Instruction) -> Option<u64> {
    match i.mnemonic() {
        Mnemonic::Lea if i.is_ip_rel_memory_operand() => Some(i.ip_rel_memory_address()),
        Mnemonic::Mov if i.op1_kind() == OpKind::Immediate32 => Some(i.immediate32().into()),
        _ => None,
    }
}

/// A path without where the machine that built it keeps its crates, and whether it is of a library.
fn short(path: &str) -> (bool, &str) {
    const CRATES: [&str; 3] = ["/registry/src/", "/git/checkouts/", "/vendor/"];
    for crates in CRATES {
        if let Some((_, rest)) = path.split_once(crates) {
            // The registry's own folder.
            let within = rest.split_once('/').filter(|_| crates != "/vendor/");
            return (true, within.map_or(rest, |(_, rest)| rest));
        }
    }
    // The folder of all crates, by a build that left out where that is.
    if let Some(rest) = path.strip_prefix("registry/") {
        return (true, rest);
    }
    match path.strip_prefix("/rustc/").and_then(|rest| rest.split_once('/')) {
        Some((_, rest)) => (true, rest),
        None => (path.starts_with("/rust/deps/"), path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, is_library: bool, expected: &str) {
        assert_eq!(short(path), (is_library, expected));
    }

    #[test]
    fn paths_are_those_within_a_crate() {
        check("src/main.rs", false, "src/main.rs");
        check("/build/shop/src/main.rs", false, "/build/shop/src/main.rs");
        check(
            "/build/cargo/registry/src/index.crates.io-1949cf8c6b5b557f/axum-0.8.1/src/serve/mod.rs",
            true,
            "axum-0.8.1/src/serve/mod.rs",
        );
        check(
            "/build/cargo/git/checkouts/tower-1234/5678/tower/src/lib.rs",
            true,
            "5678/tower/src/lib.rs",
        );
        check(
            "registry/zbus-5.15.0/src/proxy/mod.rs",
            true,
            "zbus-5.15.0/src/proxy/mod.rs",
        );
        check("/src/vendor/hyper/src/lib.rs", true, "hyper/src/lib.rs");
        check(
            "/rustc/0123abc/library/core/src/future.rs",
            true,
            "library/core/src/future.rs",
        );
        check(
            "/rust/deps/gimli-0.32/src/lib.rs",
            true,
            "/rust/deps/gimli-0.32/src/lib.rs",
        );
    }
}
