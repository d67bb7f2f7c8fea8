//! Inspect: the bytes of an executable → an [`Image`], the facts about a build that hold in every process of it.
//!
//! Detection has three values: `Ok(None)` (not a Go or tokio binary), `Ok(Some(image))`, and `Err` (one of ours, but broken
//! or out of the supported range; the message says which). A part that can't be had doesn't take the rest with it: offsets,
//! globals and each probe site carry their own `Result`.
//!
//! Architecture invariant: nothing here opens a file, reads a process or keeps state; the input is hostile until proved
//! otherwise, so arithmetic is checked, and what is read is bounded by the size of what holds it, however often it is referred to. A probe site is given only when disassembling from the
//! function's first byte proves it.

mod arch;
mod args;
mod branch;
mod elf;
#[cfg(test)]
mod empty;
mod error;
mod go;
mod image;
#[cfg(any(test, fuzzing))]
pub mod readers;
mod site;
mod source;
mod tokio;

pub use arch::Arch;
pub use args::{ArgLocation, X86Register};
pub use elf::{ElfFacts, ElfKind, LoadSegment};
#[cfg(test)]
pub use empty::{EmptyImage, SECTION as EMPTY_SECTION};
pub use error::{InspectError, SiteError};
pub use go::buildinfo::GoVersion;
pub use go::dwarf::FieldLoc;
pub use go::globals::{GlobalsSource, GoGlobals};
pub use go::histogram::{HistogramBuckets, TimeHistogramOffsets};
pub use go::hooks::GoHook;
pub use go::layouts::{GoFields, OffsetsSource};
pub use go::offsets::*;
pub use go::pclntab::{CodeAt, Frame, GoSymbolizer, InlinedFrame};
pub use go::tls::{TlsG, TlsProof};
pub use go::{GO_SUPPORTED, GoImage};
pub use image::{Image, ProcessRuntime};
pub use site::{ProbeSite, SiteCost};
pub use tokio::hooks::TokioHook;
pub use tokio::names::{FutureName, TaskKind};
pub use tokio::vtable::{HeaderLayout, TaskVtable};
pub use tokio::{PollSite, TOKIO_SUPPORTED, TokioImage};

pub use source::Bytes;

use std::fs::File;

/// How executables of one runtime are recognised.
struct Recogniser {
    inspect: Inspect,
    /// One that cannot be parsed, as it is for another kind of machine.
    foreign: fn(&dyn Bytes) -> Option<InspectError>,
    /// One whose runtime is another of the same language.
    other: fn(&elf::Binary<'_>) -> Option<InspectError>,
    /// The runtime in a shared object, as people read it.
    in_object: fn(&elf::Binary<'_>) -> Option<String>,
}

/// None when an executable is none of this runtime.
type Inspect = fn(&elf::Binary<'_>) -> Result<Option<Box<dyn Image>>, InspectError>;

impl Recogniser {
    /// One by which nothing but a runtime's own executables is recognised.
    const fn new(inspect: Inspect) -> Self {
        Self {
            inspect,
            foreign: |_| None,
            other: |_| None,
            in_object: |_| None,
        }
    }
}

/// All runtimes, in the order in which they are looked for: a Go binary that embeds Rust is Go.
const RUNTIMES: &[Recogniser] = &[
    go::RUNTIME,
    tokio::RUNTIME,
    #[cfg(test)]
    empty::RUNTIME,
];

/// Recognises an executable of a runtime that is known and collects its facts.
pub fn inspect(bytes: &[u8]) -> Result<Option<Box<dyn Image>>, InspectError> {
    look(&bytes)
}

/// As [`inspect`], but reads of the file no more than it takes, and keeps little of it at a time, however large it is.
pub fn inspect_file(file: &File) -> Result<Option<Box<dyn Image>>, InspectError> {
    look(file)
}

/// The runtime in a shared object, such as `tokio 1.54.1`.
pub fn runtime_of_object(file: &File) -> Option<String> {
    let binary = elf::Binary::parse(file).ok()?;
    RUNTIMES.iter().find_map(|runtime| (runtime.in_object)(&binary))
}

fn look(bytes: &dyn Bytes) -> Result<Option<Box<dyn Image>>, InspectError> {
    let mut head = [0; 6];
    if bytes.read_at(0, &mut head) == head.len() && elf::is_foreign(&head) {
        let foreign = RUNTIMES.iter().find_map(|runtime| (runtime.foreign)(bytes));
        return foreign.map_or(Ok(None), Err);
    }
    let binary = elf::Binary::parse(bytes)?;
    for runtime in RUNTIMES {
        if let Some(image) = (runtime.inspect)(&binary)? {
            return Ok(Some(image));
        }
    }
    match RUNTIMES.iter().find_map(|runtime| (runtime.other)(&binary)) {
        Some(other) => Err(other),
        None if binary.file.is_exhausted() => Err(InspectError::TooLarge {
            what: "bytes",
            found: binary.file.size(),
            most: source::MAX_READ,
        }),
        None => Ok(None),
    }
}

/// For `cargo xtask offsets`: the version of a Go executable and, from its DWARF, every location that [`GoOffsets`] is made
/// of. Any 64-bit little-endian machine.
pub fn go_fields(bytes: &[u8]) -> Result<(GoVersion, GoFields), InspectError> {
    go::fields(&elf::Binary::parse(&bytes)?)
}
