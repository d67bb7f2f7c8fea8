//! What executables of every runtime say of themselves, whichever runtime it is: all that those need who do not care.

use std::{any::Any, fmt::Debug, fs::File};

use super::{ElfFacts, Frame, InspectError};

/// What a binary is, with everything an attach plan needs to know about it: a type of each runtime's own.
pub trait Image: Any + Debug + Send + Sync {
    fn elf(&self) -> &ElfFacts;

    /// The runtime's name, with its version where that is known, such as `tokio 1.54.1`.
    fn name(&self) -> String;

    /// The runtime's version.
    fn version(&self) -> Option<&str>;

    /// The runtime as OpenTelemetry's conventions have it.
    fn process_runtime(&self) -> ProcessRuntime;

    /// How what is known was found, where there is more than one way.
    fn found_by(&self) -> Option<String> {
        None
    }

    /// What is not told of its processes, and why, beside signals that are off.
    fn gaps(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why nothing of the runtime can be read in its processes' memory, though there would be something.
    fn unreadable(&self) -> Option<&InspectError> {
        None
    }

    /// Whether names and places of its code are to be asked for: see [`Self::frame`] and [`Self::start`].
    fn has_symbols(&self) -> bool {
        false
    }

    /// The place in the source of a link-time address, read from its file.
    fn frame(&self, _exe: &File, _vaddr: u64) -> Option<Frame> {
        None
    }

    /// Where the function begins by which the runtime calls a goroutine or task that was started with the one at a link-time address.
    fn start(&self, _exe: &File, _vaddr: u64) -> Option<u64> {
        None
    }
}

/// What `process.runtime.*` and `telemetry.sdk.language` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRuntime {
    pub language: &'static str,
    pub name: &'static str,
    pub version: Option<String>,
    pub description: Option<String>,
}

impl dyn Image {
    /// The image as that of one runtime; None when it is another's.
    pub fn downcast_ref<T: Image>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }
}
