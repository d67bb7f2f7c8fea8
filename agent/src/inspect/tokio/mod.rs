//! A Rust executable with tokio in it: symbols → task vtables → types of tasks and probe sites.

mod evidence;
pub(super) mod hooks;
mod locations;
pub(super) mod names;
#[cfg(any(test, fuzzing))]
pub(super) mod readers;
mod returns;
mod shape;
mod symbols;
pub(super) mod vtable;

use std::collections::BTreeMap;

use memchr::memmem;

use self::hooks::TokioHook;
use self::names::{FutureName, TaskKind};
use self::symbols::Symbols;
use self::vtable::{HeaderLayout, TaskVtable};
use super::args::X86Register;
use super::elf::{Binary, ElfFacts};
use super::{Image, InspectError, ProbeSite, ProcessRuntime, Recogniser, SiteError};

/// The versions whose task layout is known; what counts is that the vtable verifies.
pub const TOKIO_SUPPORTED: &str = "tokio 1.x with a task vtable as in 1.54";

/// What is known of a Rust executable with tokio.
#[derive(Debug)]
pub struct TokioImage {
    pub elf: ElfFacts,
    /// From the source paths in panic messages, such as `1.54.1`; None when they were trimmed away.
    pub version: Option<String>,
    /// Types of tasks, by address.
    pub vtables: Vec<TaskVtable>,
    /// Places that refer to a poll function but aren't a vtable as known.
    pub rejected_vtables: usize,
    pub header: HeaderLayout,
    /// Attach points by hook; several where a function exists per scheduler.
    pub hooks: BTreeMap<TokioHook, Vec<Result<ProbeSite, SiteError>>>,
    /// One per `raw::poll<T, S>`: for when [`TokioHook::PollBegin`] has no site.
    pub polls: Vec<PollSite>,
    /// Where polls return: for when not all types call the functions of the hooks for their end. They have no argument.
    pub returns: Vec<Result<ProbeSite, SiteError>>,
}

/// The poll function of one or more types of tasks. The task's header is the site's argument.
#[derive(Debug, Clone)]
pub struct PollSite {
    pub site: Result<ProbeSite, SiteError>,
    pub future: FutureName,
    pub kind: TaskKind,
    /// Link-time address of the function.
    pub poll_fn: u64,
}

pub(super) const RUNTIME: Recogniser = Recogniser {
    in_object: |binary| mentions_tokio(binary).then(|| name(version(binary).as_deref())),
    ..Recogniser::new(|binary| Ok(inspect(binary)?.map(|image| -> Box<dyn Image> { Box::new(image) })))
};

impl Image for TokioImage {
    fn elf(&self) -> &ElfFacts {
        &self.elf
    }

    fn name(&self) -> String {
        name(self.version())
    }

    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn process_runtime(&self) -> ProcessRuntime {
        ProcessRuntime {
            language: "rust",
            name: "rust",
            version: None,
            description: self.version().map(|version| name(Some(version))),
        }
    }
}

fn name(version: Option<&str>) -> String {
    version.map_or_else(|| "tokio".to_owned(), |version| format!("tokio {version}"))
}

/// What stays in a stripped binary: source paths in panic messages, and the workers' thread name (runtime/builder.rs).
const TRACES: [&[u8]; 3] = [b"/tokio-1.", b"tokio-runtime-worker", b"tokio-rt-worker"];

/// Bytes of what is looked for, at most.
const LONGEST: usize = 64;

pub(super) fn inspect(binary: &Binary<'_>) -> Result<Option<TokioImage>, InspectError> {
    let symbols = Symbols::of(binary);
    if symbols.text() > symbols::MAX_TEXT {
        return Err(InspectError::TooLarge {
            what: "bytes of names of functions with tokio's types",
            found: symbols.text(),
            most: symbols::MAX_TEXT,
        });
    }
    let is_poll = |n: &str| names::is(n, "tokio::runtime::task::raw::poll");
    let has_names = symbols.matching(is_poll).next().is_some();
    if !has_names && (binary.has_section(".symtab") || !mentions_tokio(binary)) {
        return Ok(None);
    }
    if binary.facts.machine != object::elf::EM_X86_64.0 {
        return Err(InspectError::UnsupportedMachine {
            runtime: "tokio",
            machine: format!("e_machine {}", binary.facts.machine),
            supported: "linux/amd64",
        });
    }
    let found = if has_names {
        named(binary, &symbols)?
    } else {
        stripped(binary, &symbols)?
    };
    let Found {
        vtables,
        rejected,
        header,
    } = found;
    let named = symbols.matching(is_poll).map(|(vaddr, ..)| vaddr);
    let polls = polls(binary, &symbols, named, &vtables);
    let mut hooks = hooks::sites(binary, &symbols, &vtables);
    if !has_names {
        hooks::without_names(&mut hooks);
    }
    let ends = [TokioHook::PollEndPending, TokioHook::PollEndComplete];
    let are_placed = ends.iter().all(|hook| hooks[hook].iter().all(Result::is_ok));
    let mut tasks = vtables.iter().filter(|vtable| vtable.kind == TaskKind::Async);
    let returns = if are_placed && tasks.all(|vtable| vtable.calls_poll_end) {
        Vec::new()
    } else {
        returns::sites(binary, &symbols, header)
    };
    if symbols.is_exhausted() {
        return Err(InspectError::Malformed {
            part: "sizes of functions",
        });
    }
    Ok(Some(TokioImage {
        elf: binary.facts.clone(),
        version: version(binary),
        hooks,
        vtables,
        rejected_vtables: rejected,
        header,
        polls,
        returns,
    }))
}

/// Types of tasks, and what their headers are like.
struct Found {
    vtables: Vec<TaskVtable>,
    /// Places that looked like a vtable.
    rejected: usize,
    header: HeaderLayout,
}

/// By the symbols of their functions.
fn named(binary: &Binary<'_>, symbols: &Symbols) -> Result<Found, InspectError> {
    let (vtables, rejected) = vtable::find(binary, symbols);
    let unexpected = |what: &str, detail: String| InspectError::UnexpectedLayout {
        what: what.into(),
        detail,
        supported: TOKIO_SUPPORTED,
    };
    if vtables.is_empty() {
        return Err(unexpected(
            "tokio's task vtable",
            format!("{rejected} places refer to raw::poll, none is one"),
        ));
    }
    let header = vtable::header_layout(binary, symbols).ok_or_else(|| {
        if is_unoptimised(symbols) {
            return InspectError::Unoptimised;
        }
        unexpected(
            "the task header",
            "raw::schedule doesn't load the vtable from it as known".into(),
        )
    })?;
    Ok(Found {
        vtables,
        rejected,
        header,
    })
}

/// Without symbols: by their shape and their code.
fn stripped(binary: &Binary<'_>, symbols: &Symbols) -> Result<Found, InspectError> {
    let found = if symbols.all(binary).is_empty() {
        None
    } else {
        shape::find(binary, symbols)
    };
    found.ok_or(InspectError::Stripped { runtime: "tokio" })
}

/// The poll functions of all types, and those that are `named` so.
fn polls(
    binary: &Binary<'_>,
    symbols: &Symbols,
    named: impl Iterator<Item = u64>,
    vtables: &[TaskVtable],
) -> Vec<PollSite> {
    let mut functions: BTreeMap<u64, Vec<&TaskVtable>> = named.map(|vaddr| (vaddr, Vec::new())).collect();
    for vtable in vtables {
        functions.entry(vtable.poll).or_default().push(vtable);
    }
    let of = |(vaddr, types): (u64, Vec<&TaskVtable>)| {
        let future = match types[..] {
            [] => FutureName::Unknown,
            [one] => one.future.clone(),
            _ => FutureName::OneOf(types.iter().filter_map(|v| v.future.label()).collect()),
        };
        let name = symbols.name(vaddr).unwrap_or("a task's poll function");
        PollSite {
            site: symbols.site(binary, vaddr, name, &[X86Register::Rdi]),
            future,
            kind: types.first().map_or(TaskKind::Async, |v| v.kind),
            poll_fn: vaddr,
        }
    };
    functions.into_iter().map(of).collect()
}

/// Whether a function that only gives a field of its argument back was not inlined, which each level above 0 does.
fn is_unoptimised(symbols: &Symbols) -> bool {
    let accessor = |name: &str| names::is(name, "tokio::runtime::task::raw::RawTask::header_ptr");
    symbols.matching(accessor).next().is_some()
}

fn mentions_tokio(binary: &Binary<'_>) -> bool {
    let finders = TRACES.map(memmem::Finder::new);
    let found = binary.scan(".rodata", LONGEST, |_, data| {
        finders.iter().any(|finder| finder.find(data).is_some()).then_some(())
    });
    found.is_some()
}

/// The version in `…/tokio-1.54.1/src/…`.
fn version(binary: &Binary<'_>) -> Option<String> {
    let finder = memmem::Finder::new(TRACES[0]);
    binary.scan(".rodata", LONGEST, |_, data| {
        let version = data.get(finder.find(data)? + b"/tokio-".len()..)?;
        let end = version.iter().take(LONGEST / 2).position(|b| *b == b'/')?;
        Some(String::from_utf8_lossy(&version[..end]).into_owned())
    })
}
