//! Recordings: the ring buffer's bytes as the kernel wrote them, with what it takes to make spans of them elsewhere, without
//! root. The format is described in docs/design/recording.md.

mod read;
pub mod replay;
mod write;

use std::{borrow::Cow, collections::HashMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    inspect::Frame,
    model::{Resource, Value},
};

pub use read::{Reader, Record};
pub use write::Recorder;

/// First bytes of a recording.
const MAGIC: &[u8; 8] = b"WHYWAIT\0";
/// Version that is written, and the only one that is read.
pub const VERSION: u32 = 2;
/// Most that a record may hold: more is no recording of ours.
const LONGEST: u32 = 64 << 20;

/// Kinds of records.
const EVENT: u32 = 1;
const TARGET: u32 = 2;
const FRAMES: u32 = 3;
const END: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot write the recording {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the recording {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no recording of whywait's")]
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
    pub slot: u32,
    pub pid: u32,
    pub resource: Vec<(String, serde_json::Value)>,
    /// Future names by type id.
    pub futures: HashMap<u32, String>,
    /// The Go runtime's names of wait reasons, by number.
    pub wait_reasons: Vec<String>,
}

/// Addresses of a Go target and what they are in its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    pub slot: u32,
    pub frames: Vec<(u64, Frame)>,
}

/// The end, which only a recording that was closed in order has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Records of events in the file.
    pub events: u64,
    /// Events that the kernel side could not write while it was made.
    pub lost: u64,
}

fn to_json(resource: &Resource) -> Vec<(String, serde_json::Value)> {
    let value = |value: &Value| match value {
        Value::Str(text) => serde_json::Value::from(text.as_ref()),
        Value::I64(number) => (*number).into(),
        Value::Bool(flag) => (*flag).into(),
        Value::List(texts) => texts.clone().into(),
    };
    let attributes = resource.attributes.iter();
    attributes.map(|(key, held)| (key.to_string(), value(held))).collect()
}

/// Values of other kinds are none of ours, and left out.
fn to_resource(json: &[(String, serde_json::Value)]) -> Resource {
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(Value::from(text.clone())),
        serde_json::Value::Number(number) => number.as_i64().map(Value::I64),
        serde_json::Value::Bool(flag) => Some(Value::Bool(*flag)),
        _ => None,
    };
    let attributes = json.iter();
    Resource {
        attributes: attributes
            .filter_map(|(key, held)| Some((Cow::Owned(key.clone()), value(held)?)))
            .collect(),
    }
}
