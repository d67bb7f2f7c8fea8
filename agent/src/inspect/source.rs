//! Where an executable's bytes come from: memory, or a file of which no more is kept at a time than a few windows.

use std::cell::{Cell, RefCell};
use std::fs::File;

/// Bytes that are read where they are asked for. Not a mapping of a file: whoever may write it could end the agent by cutting
/// it short.
pub trait Bytes {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fills `into` from `offset`, as far as there are any; how many.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> usize;
}

impl Bytes for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        let from = usize::try_from(offset).ok();
        let found = from.and_then(|from| self.get(from..)).unwrap_or_default();
        let count = found.len().min(into.len());
        into[..count].copy_from_slice(&found[..count]);
        count
    }
}

impl Bytes for &[u8] {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        (**self).read_at(offset, into)
    }
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        self.as_slice().read_at(offset, into)
    }
}

impl Bytes for File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < into.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut into[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        filled
    }
}

/// Bytes of a window, and of what a scan looks at at once.
const WINDOW: usize = 8 << 10;
const STRETCH: usize = 256 << 10;
/// Windows that are kept: names and what refers to them are read side by side.
const WINDOWS: usize = 64;
/// Most that is read of one file: its headers may claim the same parts many times over, and a file may be a hole of any size.
pub(crate) const MAX_READ: u64 = 4 << 30;

/// Small reads of something large, through windows that are kept as long as others do not take their place.
pub(crate) struct Windows<'a> {
    of: &'a dyn Bytes,
    size: u64,
    kept: RefCell<Vec<Window>>,
    left: Cell<u64>,
}

#[derive(Default)]
struct Window {
    begin: u64,
    bytes: Vec<u8>,
}

impl<'a> Windows<'a> {
    pub(crate) fn new(of: &'a dyn Bytes) -> Self {
        Self {
            of,
            size: of.size(),
            kept: RefCell::default(),
            left: Cell::new(MAX_READ),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether more was asked for than is read of one file: what was found then is not all.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    /// Fills `into` from `offset`; None where there are not as many bytes.
    pub(crate) fn fill(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        if offset.checked_add(into.len() as u64)? > self.size {
            return None;
        }
        if into.len() > WINDOW {
            return (self.direct(offset, into)? == into.len()).then_some(());
        }
        let mut filled = 0;
        while filled < into.len() {
            let room = &mut into[filled..];
            filled += self.window(offset + filled as u64, |found| {
                let count = found.len().min(room.len());
                room[..count].copy_from_slice(&found[..count]);
                count
            })?;
        }
        Some(())
    }

    /// A copy of `size` bytes at `offset`. Callers bound the size.
    pub(crate) fn copy(&self, offset: u64, size: u64) -> Option<Vec<u8>> {
        if offset.checked_add(size)? > self.size {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        self.fill(offset, &mut bytes)?;
        Some(bytes)
    }

    pub(crate) fn word(&self, offset: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.fill(offset, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    pub(crate) fn long(&self, offset: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fill(offset, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    pub(crate) fn byte(&self, offset: u64) -> Option<u8> {
        self.window(offset, |found| found[0])
    }

    /// The bytes from `offset` up to the next 0, into `name`; None when there is none before `end`, nor among the first `longest`.
    pub(crate) fn name(&self, offset: u64, end: u64, longest: usize, name: &mut Vec<u8>) -> Option<()> {
        name.clear();
        let end = end.min(offset.checked_add(longest as u64 + 1)?);
        let mut at = offset;
        while at < end {
            let most = (end - at) as usize;
            let (took, is_over) = self.window(at, |found| {
                let found = &found[..found.len().min(most)];
                let zero = memchr::memchr(0, found);
                name.extend_from_slice(&found[..zero.unwrap_or(found.len())]);
                (found.len(), zero.is_some())
            })?;
            if is_over {
                return Some(());
            }
            at += took as u64;
        }
        None
    }

    /// Shows `visit` all bytes of a range, each stretch with the last `overlap` of the one before, until it has an answer. `overlap`
    /// is less than a stretch.
    pub(crate) fn scan<T>(
        &self,
        range: std::ops::Range<u64>,
        overlap: usize,
        mut visit: impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Option<T> {
        let end = range.end.min(self.size);
        let mut bytes = vec![0; STRETCH.min(usize::try_from(end.saturating_sub(range.start)).unwrap_or(STRETCH))];
        let mut begin = range.start;
        while begin < end {
            let size = (end - begin).min(bytes.len() as u64) as usize;
            let found = self.direct(begin, &mut bytes[..size])?;
            if let Some(answer) = visit(begin, &bytes[..found]) {
                return Some(answer);
            }
            if found < size || begin + size as u64 == end {
                break;
            }
            begin += (size - overlap) as u64;
        }
        None
    }

    fn window<T>(&self, offset: u64, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let begin = offset - offset % WINDOW as u64;
        let mut kept = self.kept.borrow_mut();
        if kept.is_empty() {
            kept.resize_with(WINDOWS, Window::default);
        }
        let window = &mut kept[(begin / WINDOW as u64) as usize % WINDOWS];
        if window.begin != begin || window.bytes.is_empty() {
            window.begin = begin;
            window.bytes.resize(WINDOW, 0);
            let found = self.direct(begin, &mut window.bytes).unwrap_or(0);
            window.bytes.truncate(found);
        }
        let found = window.bytes.get((offset - begin) as usize..)?;
        (!found.is_empty()).then(|| look(found))
    }

    fn direct(&self, offset: u64, into: &mut [u8]) -> Option<usize> {
        let left = self.left.get().checked_sub(into.len() as u64);
        self.left.set(left.unwrap_or(0));
        left.map(|_| self.of.read_at(offset, into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Vec<u8> {
        (0..WINDOW * 3 + 100).map(|at| (at / 7 % 251 + 1) as u8).collect()
    }

    #[test]
    fn windows_show_what_is_there() {
        let bytes = numbers();
        let windows = Windows::new(&bytes);
        let size = bytes.len();
        for (offset, length) in [
            (0, 1),
            (WINDOW - 3, 8),
            (5, WINDOW),
            (5, WINDOW * 2),
            (size - 4, 4),
            (size, 0),
        ] {
            let found = windows.copy(offset as u64, length as u64);
            assert_eq!(
                found.as_deref(),
                Some(&bytes[offset..offset + length]),
                "{offset} {length}"
            );
        }
        for (offset, length) in [(size - 4, 5), (size + 1, 0), (usize::MAX, 4), (0, usize::MAX)] {
            assert_eq!(windows.copy(offset as u64, length as u64), None, "{offset} {length}");
        }
        assert_eq!(
            (windows.byte(size as u64), windows.byte(size as u64 - 1)),
            (None, Some(bytes[size - 1]))
        );
    }

    #[test]
    fn names_end() {
        let mut bytes = numbers();
        bytes[WINDOW + 10] = 0;
        let windows = Windows::new(&bytes);
        let end = bytes.len() as u64;
        let check = |from: usize, end: u64, longest: usize, expected: Option<usize>| {
            let mut name = vec![7];
            let found = windows.name(from as u64, end, longest, &mut name);
            assert_eq!(found.map(|()| name.len()), expected, "{from} {longest}");
        };
        check(WINDOW + 10, end, 0, Some(0));
        check(WINDOW - 5, end, 100, Some(15));
        check(WINDOW - 5, end, 15, Some(15));
        check(WINDOW - 5, end, 14, None);
        check(WINDOW - 5, WINDOW as u64 + 10, 100, None);
        check(WINDOW + 11, end, usize::MAX >> 1, None);
    }

    #[test]
    fn a_scan_misses_nothing_at_the_edges() {
        let mut bytes = vec![0; STRETCH * 2 + 1000];
        for at in [STRETCH - 3, STRETCH * 2 - 2, STRETCH * 2 + 995] {
            bytes[at..at + 5].copy_from_slice(b"wanted"[..5].as_ref());
        }
        let windows = Windows::new(&bytes);
        let mut found = std::collections::BTreeSet::new();
        let all = windows.scan(0..u64::MAX, 4, |at, part| -> Option<()> {
            found.extend(memchr::memmem::find_iter(part, b"wante").map(|within| at + within as u64));
            None
        });
        assert_eq!(all, None);
        let expected = [STRETCH - 3, STRETCH * 2 - 2, STRETCH * 2 + 995].map(|at| at as u64);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    /// A file that is a hole, as large as they come: no more is read of it than is read of any, and that is known.
    #[test]
    fn a_hole_is_not_read_for_ever() {
        struct Hole;
        impl Bytes for Hole {
            fn size(&self) -> u64 {
                u64::MAX
            }
            fn read_at(&self, _: u64, into: &mut [u8]) -> usize {
                into.len()
            }
        }
        let windows = Windows::new(&Hole);
        assert_eq!(windows.scan(0..u64::MAX, 0, |_, _| None::<()>), None);
        assert!(windows.is_exhausted());
    }
}
