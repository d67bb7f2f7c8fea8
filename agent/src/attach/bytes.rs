//! Whether an executable still holds the bytes that were proved; read aside, as its file system may not answer.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    plan::Probe,
    uprobe::{AttachError, Place},
};
use crate::deadline;

/// Of each probe, whether the file still holds the bytes that were proved.
pub(super) fn unchanged(place: &Place, probes: &[Probe]) -> Vec<Result<(), AttachError>> {
    if probes.is_empty() {
        return Vec::new();
    }
    let places: Vec<_> = probes
        .iter()
        .map(|Probe { site, .. }| (site.file_offset, site.bytes.len()))
        .collect();
    let path = place.exe.clone();
    let read = deadline::soon(place.pid, move || {
        let file = File::open(path)?;
        let read = |(offset, length): (u64, usize)| {
            let mut found = vec![0; length];
            file.read_exact_at(&mut found, offset).map(|()| found)
        };
        Ok(places.into_iter().map(read).collect::<Vec<_>>())
    });
    let read = read.unwrap_or_else(|error| {
        let again = || io::Error::new(error.kind(), error.to_string());
        probes.iter().map(|_| Err(again())).collect()
    });
    let check = |(probe, found): (&Probe, io::Result<Vec<u8>>)| {
        let (function, offset) = (probe.site.function.clone(), probe.site.file_offset);
        match found {
            Ok(found) if found == probe.site.bytes => Ok(()),
            Ok(_) => Err(AttachError::BytesChanged { function, offset }),
            Err(source) => Err(AttachError::Read {
                function,
                offset,
                source,
            }),
        }
    };
    probes.iter().zip(read).map(check).collect()
}
