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
mod error;
mod go;
#[cfg(any(test, fuzzing))]
pub mod readers;
mod site;
mod source;
mod tokio;

pub use arch::Arch;
pub use args::{ArgLocation, X86Register};
pub use elf::{ElfFacts, ElfKind, LoadSegment};
pub use error::{InspectError, SiteError};
pub use go::buildinfo::GoVersion;
pub use go::dwarf::FieldLoc;
pub use go::globals::{GlobalsSource, GoGlobals};
pub use go::histogram::{HistogramBuckets, TimeHistogramOffsets};
pub use go::hooks::GoHook;
pub use go::layouts::{GoFields, OffsetsSource};
pub use go::offsets::*;
pub use go::pclntab::{Frame, GoSymbolizer};
pub use go::tls::{TlsG, TlsProof};
pub use go::{GO_SUPPORTED, GoImage};
pub use site::{ProbeSite, SiteCost};
pub use tokio::hooks::TokioHook;
pub use tokio::names::{FutureName, TaskKind};
pub use tokio::vtable::{HeaderLayout, TaskVtable};
pub use tokio::{PollSite, TOKIO_SUPPORTED, TokioImage};

pub use source::Bytes;

use std::fs::File;

/// What a binary is, with everything an attach plan needs to know about it.
#[derive(Debug)]
pub enum Image {
    Go(Box<GoImage>),
    Tokio(Box<TokioImage>),
}

/// Recognises a Go or tokio executable and collects its facts. A Go binary that embeds Rust is Go.
pub fn inspect(bytes: &[u8]) -> Result<Option<Image>, InspectError> {
    look(&bytes)
}

/// As [`inspect`], but reads of the file no more than it takes, and keeps little of it at a time, however large it is.
pub fn inspect_file(file: &File) -> Result<Option<Image>, InspectError> {
    look(file)
}

/// The runtime in a shared object, such as `tokio 1.54.1`.
pub fn runtime_of_object(file: &File) -> Option<String> {
    let binary = elf::Binary::parse(file).ok()?;
    if let Ok(Some(version)) = go::version(&binary) {
        return Some(format!("a Go runtime ({version})"));
    }
    tokio::mentions_tokio(&binary).then(|| match tokio::version(&binary) {
        Some(version) => format!("tokio {version}"),
        None => "tokio".to_owned(),
    })
}

fn look(bytes: &dyn Bytes) -> Result<Option<Image>, InspectError> {
    let mut head = [0; 6];
    if bytes.read_at(0, &mut head) == head.len() && elf::is_foreign(&head) {
        return match go::is_marked(bytes) {
            true => Err(InspectError::UnsupportedMachine {
                runtime: "Go",
                machine: "32 bit or big endian".into(),
                supported: "linux/amd64 or linux/arm64",
            }),
            false => Ok(None),
        };
    }
    let binary = elf::Binary::parse(bytes)?;
    let found = match go::inspect(&binary)? {
        Some(image) => Some(Image::Go(Box::new(image))),
        None => match tokio::inspect(&binary)? {
            Some(image) => Some(Image::Tokio(Box::new(image))),
            None => go::other_toolchain(&binary).map_or(Ok(None), Err)?,
        },
    };
    match found {
        None if binary.file.is_exhausted() => Err(InspectError::TooLarge {
            what: "bytes",
            found: binary.file.size(),
            most: source::MAX_READ,
        }),
        found => Ok(found),
    }
}

/// For `cargo xtask offsets`: the version of a Go executable and, from its DWARF, every location that [`GoOffsets`] is made
/// of. Any 64-bit little-endian machine.
pub fn go_fields(bytes: &[u8]) -> Result<(GoVersion, GoFields), InspectError> {
    go::fields(&elf::Binary::parse(&bytes)?)
}
