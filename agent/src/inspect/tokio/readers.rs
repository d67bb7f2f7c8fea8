//! The reader of what tokio leaves in an executable, by itself ([`crate::inspect::readers`]).

use super::super::elf::Binary;
use super::super::readers::{address_of, executable};
use super::names;

/// Functions that are looked for, by the names their symbols have here: not mangled.
const FUNCTIONS: [&str; 16] = [
    "tokio::runtime::task::raw::poll",
    "tokio::runtime::task::raw::schedule",
    "tokio::runtime::task::raw::dealloc",
    "tokio::runtime::task::raw::try_read_output",
    "tokio::runtime::task::raw::drop_join_handle_slow",
    "tokio::runtime::task::raw::drop_abort_handle",
    "tokio::runtime::task::raw::shutdown",
    "tokio::runtime::task::state::State::transition_to_running",
    "tokio::runtime::task::state::State::transition_to_idle",
    "tokio::runtime::task::state::State::transition_to_complete",
    "<alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle> as tokio::runtime::task::Schedule>::schedule",
    "tokio::runtime::task::list::OwnedTasks<S>::bind_inner",
    "tokio::runtime::scheduler::multi_thread::worker::Context::park_internal",
    "tokio::runtime::task::harness::Harness<T,S>::poll",
    "core::ptr::drop_in_place<tokio::runtime::task::core::Cell<a::f::{{closure}},alloc::sync::Arc<H>>>",
    "core::ptr::drop_in_place<tokio::runtime::task::core::Cell<tokio::runtime::blocking::task::BlockingTask<b::g>,S>>",
];

/// A name of a function with its length in front of it, 8 bits; words of data, likewise, each a byte: a function's number or
/// an offset; and the code of all functions, all of them equally long.
pub(in crate::inspect) fn tokio(bytes: &[u8]) {
    let mut rest = bytes;
    let mut part = || {
        let (length, after) = rest.split_first().unwrap_or((&0, &[]));
        let (part, after) = after.split_at(after.len().min((*length).into()));
        rest = after;
        part
    };
    let (name, words) = (part(), part());
    let code = [rest, &[0xcc]].concat();
    let size = (code.len() / (FUNCTIONS.len() + 1)).max(1) as u64;
    let _ = names::demangle(&String::from_utf8_lossy(name));
    let file = |symbols: &[u8], strings: &[u8], data: &[u8]| {
        executable(&[
            (".text", &code, 0),
            (".symtab", symbols, 3),
            (".strtab", strings, 0),
            (".data.rel.ro", data, 0),
            (".rodata", b"\0/tokio-1.54.1/src/x.rs", 0),
        ])
    };
    let text = address_of(&file(&[], &[0], &[0]), ".text");
    let (mut symbols, mut strings) = (vec![0u8; 24], vec![0u8]);
    let all = FUNCTIONS.iter().map(|name| name.as_bytes()).chain([name]);
    for (i, name) in (0..).zip(all) {
        symbols.extend((strings.len() as u32).to_le_bytes());
        // STT_FUNC, in section 1.
        symbols.extend([2, 0, 1, 0]);
        symbols.extend([text + i * size, size].map(u64::to_le_bytes).as_flattened());
        strings.extend(name.iter().chain(&[0]));
    }
    let word = |byte: &u8| match u64::from(*byte) {
        number @ 0..=16 => text + number * size,
        offset => offset * 8,
    };
    let data: Vec<u8> = words.iter().flat_map(|byte| word(byte).to_le_bytes()).collect();
    let named = file(&symbols, &strings, &data);
    let stripped = executable(&[
        (".text", &code, 0),
        (".eh_frame_hdr", &begins(text, size, code.len() as u64), 0),
        (".data.rel.ro", &data, 0),
        (
            ".rodata",
            b"\0/tokio-1.54.1/src/x.rs\0`async fn` resumed after completion`async fn` resumed after panicking",
            0,
        ),
    ]);
    for file in [named, stripped] {
        if let Ok(binary) = Binary::parse(&file) {
            let _ = super::inspect(&binary);
        }
    }
}

/// A table for unwinding (.eh_frame_hdr, version 1): pointers relative to themselves, a count, and rows relative to the table, of which only the first
/// columns are read. It lies behind the code.
fn begins(text: u64, size: u64, code: u64) -> Vec<u8> {
    let count = code / size;
    let table = (text + code).next_multiple_of(16);
    let mut bytes = vec![1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0];
    bytes.extend((count as u32).to_le_bytes());
    for nth in 0..count {
        bytes.extend(((text + nth * size).wrapping_sub(table) as i32).to_le_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}
