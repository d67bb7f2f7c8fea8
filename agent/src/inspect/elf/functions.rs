//! Where functions begin, by the table for unwinding (Linux Standard Base Core, .eh_frame_hdr): a stripped file has it too.

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian};

use super::Binary;

/// Of one file, 8 bytes each: an executable of 100 MB has some 200,000.
const MOST: usize = 1 << 20;
/// The last function's size is not in the table.
const LAST: u64 = 64 << 10;

/// Begins of functions, in order.
#[derive(Debug, Default)]
pub(crate) struct Functions(Vec<u64>);

impl Functions {
    /// None where there is no such table, or it is malformed.
    pub(crate) fn of(binary: &Binary<'_>) -> Self {
        Self(begins(binary).unwrap_or_default())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The function that holds `vaddr`: its begin, and its size with the padding behind it.
    pub(crate) fn around(&self, vaddr: u64) -> Option<(u64, u64)> {
        let next = self.0.partition_point(|begin| *begin <= vaddr);
        let begin = *self.0.get(next.checked_sub(1)?)?;
        let end = self.0.get(next).copied().unwrap_or(begin.saturating_add(LAST));
        Some((begin, end - begin)).filter(|_| vaddr < end)
    }
}

fn begins(binary: &Binary<'_>) -> Option<Vec<u64>> {
    const NAME: &str = ".eh_frame_hdr";
    let (table, address) = (binary.contents(NAME)?, binary.range_of(NAME)?.start);
    let bases = BaseAddresses::default().set_eh_frame_hdr(address);
    let header = EhFrameHdr::new(&table, LittleEndian).parse(&bases, 8).ok()?;
    let table = header.table()?;
    let mut rows = table.iter(&bases);
    let mut begins = Vec::new();
    while let Ok(Some((begin, _))) = rows.next() {
        begins.push(begin.direct().ok()?);
        if begins.len() > MOST {
            return None;
        }
    }
    begins.sort_unstable();
    begins.dedup();
    Some(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_reaches_to_the_next() {
        let functions = Functions(vec![0x100, 0x140, 0x200]);
        for (vaddr, expected) in [
            (0xff, None),
            (0x100, Some((0x100, 0x40))),
            (0x13f, Some((0x100, 0x40))),
            (0x140, Some((0x140, 0xc0))),
            (0x2ff, Some((0x200, LAST))),
            (0x200 + LAST, None),
        ] {
            assert_eq!(functions.around(vaddr), expected, "{vaddr:#x}");
        }
        assert_eq!(Functions::default().around(0x100), None);
    }
}
