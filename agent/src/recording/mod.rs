//! Recordings: the ring buffer's bytes as the kernel wrote them, with what it takes to make spans of them elsewhere, without
//! root. The format is described in docs/design/recording.md.

mod format;
#[cfg(test)]
mod golden_tests;
mod read;
pub mod replay;
mod write;

use std::borrow::Cow;

use crate::model::{Resource, Value};

pub use format::{Described, End, Frames, Preface, RecordingError, VERSION};
use format::{END, EVENT, FRAMES, LONGEST, MAGIC, TARGET};
pub use read::{Reader, Record};
pub use write::{Finished, Recorder};

fn to_json(resource: &Resource) -> Vec<(String, serde_json::Value)> {
    let value = |value: &Value| match value {
        Value::Str(text) => serde_json::Value::from(text.as_ref()),
        Value::I64(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
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
