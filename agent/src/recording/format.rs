//! What a recording consists of.

use std::{collections::HashMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::inspect::Frame;

/// First bytes of a recording.
pub(super) const MAGIC: &[u8; 8] = b"WHYWAIT\0";
/// Version that is written, and the only one that is read.
pub const VERSION: u32 = 3;
/// Most that a record may hold: more is no recording of ours.
pub(super) const LONGEST: u32 = 64 << 20;

/// Kinds of records.
pub(super) const EVENT: u32 = 1;
pub(super) const TARGET: u32 = 2;
pub(super) const FRAMES: u32 = 3;
pub(super) const END: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot write the recording {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the recording {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a recording of whywait")]
    NotOurs { path: PathBuf },
    #[error(
        "{path} is a recording of version {found}, this whywait reads version {VERSION}: use the whywait that wrote it"
    )]
    Version { path: PathBuf, found: u32 },
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged { path: PathBuf, offset: u64, what: String },
}

/// What stands before the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preface {
    /// Version of the agent that wrote it.
    pub agent: String,
    /// The kernel's release.
    pub kernel: String,
    /// A moment by CLOCK_MONOTONIC, ns, and by the wall clock, ns after 1970.
    pub mono: u64,
    pub wall: u64,
}

/// A target as its spans need it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Described {
    #[serde(rename = "slot")]
    pub target_id: u32,
    pub pid: u32,
    pub resource: Vec<(String, serde_json::Value)>,
    /// Future names by type id.
    pub futures: HashMap<u32, String>,
    /// The Go runtime's names of wait reasons, by number.
    pub wait_reasons: Vec<String>,
    /// The cgroup that throttled it then; none in recordings of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<String>,
}

/// Addresses of a Go target and what they are in its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    #[serde(rename = "slot")]
    pub target_id: u32,
    /// Of functions that goroutines were started with: where the one begins that such a goroutine is called by; 0 for none.
    pub starts: Vec<(u64, u64)>,
    pub frames: Vec<(u64, Frame)>,
}

/// The end, which only a recording that was closed in order has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Records of events in the file.
    pub events: u64,
    /// Events that are not: that the kernel side could not write while it was made, that the disk was too slow for, and of targets whose last
    /// figures had left.
    pub lost: u64,
}
