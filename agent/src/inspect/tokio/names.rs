//! Readable names of futures, out of mangled symbols.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// Bytes of a demangled name; a longer one is left as it is.
const MAX_NAME: usize = 1 << 16;

/// Whether a task is a future that is polled, or a closure on the blocking pool that runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKind {
    Async,
    /// `BlockingTask<F>` (tokio, runtime/blocking/task.rs): spawn_blocking, and the runtime's own worker threads.
    Blocking,
}

/// What is known of a task's future type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FutureName {
    Known(String),
    /// One of these, or a further type with the same machine code: LLVM's mergefunc kept one function for several types.
    OneOf(Vec<String>),
    /// No symbol names it.
    Unknown,
}

impl FutureName {
    /// For people; None when nothing is known.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::Known(name) => Some(name.clone()),
            Self::OneOf(names) => Some(names.join(" | ")),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for FutureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label().as_deref().unwrap_or("unknown"))
    }
}

/// A `task::core::Cell<F, S>`, that is, one kind of task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cell {
    pub(super) future: String,
    pub(super) kind: TaskKind,
    pub(super) scheduler: String,
}

/// Demangled, without hashes; `<T>::method` of the v0 mangling becomes `T::method`, as the legacy one has it.
pub(super) fn demangle(mangled: &str) -> String {
    let mut name = Bounded(String::new());
    // Back references make a megabyte of a few bytes.
    if write!(name, "{:#}", rustc_demangle::demangle(mangled)).is_err() {
        return mangled.to_owned();
    }
    let name = name.0;
    let Some(inner) = name.strip_prefix('<') else {
        return name;
    };
    match split_at_close(inner) {
        Some((path, rest)) if !path.contains(" as ") => format!("{path}{rest}"),
        _ => name,
    }
}

/// Text of at most [`MAX_NAME`] bytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// `name` is the function `path`, perhaps with generic arguments behind it (v0).
pub(super) fn is(name: &str, path: &str) -> bool {
    name.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::<"))
}

/// The task type that a `drop_in_place` of its cell, or of a box of it, is for.
pub(super) fn dropped_cell(name: &str) -> Option<Cell> {
    let dropped = generic_arguments(name, "core::ptr::drop_in_place")?;
    let inner = dropped.strip_prefix("alloc::boxed::Box<").unwrap_or(dropped);
    let arguments = generic_arguments(inner, "tokio::runtime::task::core::Cell")?;
    cell(arguments)
}

/// The future that a `drop_in_place` of a task's stage is for.
pub(super) fn dropped_stage(name: &str) -> Option<String> {
    let dropped = generic_arguments(name, "core::ptr::drop_in_place")?;
    let arguments = generic_arguments(dropped, "tokio::runtime::task::core::CoreStage")
        .or_else(|| generic_arguments(dropped, "tokio::runtime::task::core::Stage"))?;
    Some(future(arguments).0)
}

/// The task type in the name of a v0-mangled `raw::poll::<F, S>`.
pub(super) fn polled_cell(name: &str) -> Option<Cell> {
    cell(generic_arguments(name, "tokio::runtime::task::raw::poll")?)
}

/// The names of a set of task types, each once.
pub(super) fn futures<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Vec<String> {
    cells
        .into_iter()
        .map(|c| c.future.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn cell(arguments: &str) -> Option<Cell> {
    let (first, rest) = split_at_comma(arguments);
    let (future, kind) = future(first);
    Some(Cell {
        future,
        kind,
        scheduler: split_at_comma(rest?).0.trim().to_owned(),
    })
}

fn future(name: &str) -> (String, TaskKind) {
    match generic_arguments(name.trim(), "tokio::runtime::blocking::task::BlockingTask") {
        Some(inner) => (inner.trim().to_owned(), TaskKind::Blocking),
        None => (name.trim().to_owned(), TaskKind::Async),
    }
}

/// What stands between the angle brackets in `path<…>` or `path::<…>`.
fn generic_arguments<'a>(name: &'a str, path: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(path)?;
    let inner = rest.strip_prefix("::").unwrap_or(rest).strip_prefix('<')?;
    Some(split_at_close(inner)?.0)
}

/// Splits behind the bracket that closes one opened before `text`; `->` doesn't close.
fn split_at_close(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut before) = (1usize, b' ');
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if before != b'-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..i], &text[i + 1..]));
        }
        before = byte;
    }
    None
}

/// Splits at the first comma that stands in no bracket.
fn split_at_comma(text: &str) -> (&str, Option<&str>) {
    let (mut depth, mut before) = (0i64, b' ');
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' if before == b'-' => {}
            b'>' | b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => return (&text[..i], Some(&text[i + 1..])),
            _ => {}
        }
        before = byte;
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let check = |name: &str, expected: Option<(&str, TaskKind)>| {
            let found = dropped_cell(name).or_else(|| polled_cell(name));
            assert_eq!(found.as_ref().map(|c| (c.future.as_str(), c.kind)), expected, "{name}");
        };
        let serve =
            "axum::serve::handle_connection<tokio::net::tcp::listener::TcpListener,axum::routing::Router>::{{closure}}";
        let name = format!(
            "core::ptr::drop_in_place<alloc::boxed::Box<tokio::runtime::task::core::Cell<{serve},alloc::sync::Arc<H>>>>"
        );
        check(&name, Some((serve, TaskKind::Async)));
        check(
            "core::ptr::drop_in_place<tokio::runtime::task::core::Cell<tokio::runtime::blocking::task::BlockingTask<a::f::{{closure}}>,S>>",
            Some(("a::f::{{closure}}", TaskKind::Blocking)),
        );
        check(
            "core::ptr::drop_in_place::<tokio::runtime::task::core::Cell<a::g<fn(u8, u16) -> u32>::{closure#0}, alloc::sync::Arc<H>>>",
            Some(("a::g<fn(u8, u16) -> u32>::{closure#0}", TaskKind::Async)),
        );
        check(
            "tokio::runtime::task::raw::poll::<a::f::{closure#0}, alloc::sync::Arc<H>>",
            Some(("a::f::{closure#0}", TaskKind::Async)),
        );
        check("core::ptr::drop_in_place<alloc::string::String>", None);
        check("core::ptr::drop_in_place<tokio::runtime::task::core::Cell<a", None);
        check("tokio::runtime::task::raw::poll", None);
    }

    #[test]
    fn demangled_names() {
        let check = |mangled: &str, expected: &str| assert_eq!(demangle(mangled), expected);
        check(
            "_ZN5tokio7runtime4task5state5State18transition_to_idle17hacaca6cb1db2204fE",
            "tokio::runtime::task::state::State::transition_to_idle",
        );
        check(
            "_ZN5tokio7runtime4task3raw4poll17h16d3fab31ec009b4E.llvm.1696355252513951182",
            "tokio::runtime::task::raw::poll",
        );
        check("main", "main");
        assert!(is("a::b::<u8>", "a::b") && is("a::b", "a::b") && !is("a::bc", "a::b"));
    }
}
