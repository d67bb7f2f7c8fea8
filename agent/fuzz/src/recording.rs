//! Recordings, as `whywait replay` reads them.

use std::path::Path;

#[path = "../../src/recording/format.rs"]
mod format;
#[path = "../../src/recording/read.rs"]
mod read;

use format::*;

/// A whole recording.
pub(super) fn recording(bytes: &[u8]) {
    let Ok(mut reader) = read::Reader::new(bytes, Path::new("x.rec")) else {
        return;
    };
    while let Ok(Some(_)) = reader.read() {}
}
