//! Tables of abbreviations: what the entries of a unit look like.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use gimli::{Abbreviations, DebugAbbrev, DebugAbbrevOffset, LittleEndian};

/// Bytes of a table, and of those that are kept: in memory each takes some twenty times as many. Go's own linker writes one of some KB,
/// a C compiler one a file.
const MAX_TABLE: usize = 256 << 10;
const MAX_TABLES: usize = 2 * MAX_TABLE;

/// Tables by their offset in .debug_abbrev, read when first asked for.
#[derive(Default)]
pub(super) struct Tables {
    read: HashMap<usize, Arc<Abbreviations>>,
    /// Bytes that they stand for.
    bytes: usize,
    /// Where tables begin: none is read beyond where the next one does.
    starts: BTreeSet<usize>,
}

impl Tables {
    /// Takes note of where one begins.
    pub(super) fn begins(&mut self, offset: DebugAbbrevOffset) {
        self.starts.insert(offset.0);
    }

    /// The one at an offset of `section`, and how many bytes were read for it.
    pub(super) fn get(
        &mut self,
        section: &[u8],
        offset: DebugAbbrevOffset,
    ) -> gimli::Result<(Arc<Abbreviations>, usize)> {
        if let Some(known) = self.read.get(&offset.0) {
            return Ok((known.clone(), 0));
        }
        let next = self.starts.range((Bound::Excluded(offset.0), Bound::Unbounded)).next();
        let end = next.map_or(section.len(), |next| section.len().min(*next));
        let end = end.min(offset.0.saturating_add(MAX_TABLE));
        let read = Arc::new(DebugAbbrev::new(&section[..end], LittleEndian).abbreviations(offset)?);
        let size = end.saturating_sub(offset.0);
        if self.bytes + size > MAX_TABLES {
            self.read.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.read.insert(offset.0, read.clone());
        Ok((read, size))
    }
}
