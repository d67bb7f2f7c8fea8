//! The relocations that are applied to the loaded image.

use std::collections::HashSet;

use object::elf;

use super::super::InspectError;
use super::super::arch::Arch;
use super::super::source::Windows;
use super::headers::Section;
use super::{Binary, long};

/// An applied relocation of the loaded image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    pub(crate) place: u64,
    pub(crate) addend: i64,
    pub(crate) kind: u32,
    pub(crate) symbol: u32,
}

/// All of them are kept, 24 bytes each, while an executable is looked at: a position-independent one of 100 MB has some 400,000.
const MOST: u64 = 1 << 20;
const ENTRY: u64 = 24;
/// Those that are read at once.
const BATCH: u64 = 1024;

/// Relocations by place. Sections that overlap are refused: each entry is kept.
pub(super) fn read(file: &Windows<'_>, sections: &[Section]) -> Result<Vec<Relocation>, InspectError> {
    let malformed = InspectError::Malformed { part: "relocations" };
    let applied = || {
        let applied = sections.iter().filter(|s| s.kind == elf::SHT_RELA.0 && s.is_loaded());
        applied.filter_map(Section::file_range)
    };
    let claimed = applied().try_fold(0u64, |sum, range| sum.checked_add(range.end - range.start));
    let claimed = claimed.filter(|claimed| *claimed <= file.size()).ok_or(malformed)?;
    if claimed / ENTRY > MOST {
        return Err(InspectError::TooLarge {
            what: "relocations",
            found: claimed / ENTRY,
            most: MOST,
        });
    }
    let mut all = Vec::with_capacity((claimed / ENTRY) as usize);
    for range in applied() {
        let mut at = range.start;
        while at < range.end {
            let size = (range.end - at).min(BATCH * ENTRY);
            // Of a section that the file has not all of, what is there.
            let Some(batch) = file.copy(at, size) else { break };
            all.extend(
                batch
                    .as_chunks::<{ ENTRY as usize }>()
                    .0
                    .iter()
                    .map(|entry| Relocation {
                        place: long(entry, 0),
                        kind: long(entry, 8) as u32,
                        symbol: (long(entry, 8) >> 32) as u32,
                        addend: long(entry, 16) as i64,
                    }),
            );
            at += size;
        }
    }
    all.sort_unstable_by_key(|r| r.place);
    Ok(all)
}

impl Binary<'_> {
    /// The pointer stored at `vaddr` as the loader leaves it (before the bias is added).
    pub(crate) fn pointer(&self, vaddr: u64) -> Option<u64> {
        match self.relocation(vaddr) {
            Some(r) if self.is_relative(r) => Some(r.addend as u64),
            Some(r) if self.is_absolute(r) => {
                let symbol = self.dynamic_symbol(r.symbol)?;
                (symbol != 0).then(|| symbol.wrapping_add(r.addend as u64))
            }
            Some(_) => None,
            None => self.word(vaddr),
        }
    }

    pub(crate) fn relocation(&self, place: u64) -> Option<Relocation> {
        let at = self.relocations.binary_search_by_key(&place, |r| r.place).ok()?;
        self.relocations.get(at).copied()
    }

    /// The loader adds the bias to the addend.
    fn is_relative(&self, relocation: Relocation) -> bool {
        relocation.kind
            == match Arch::of(self.facts.machine) {
                Some(Arch::Arm64) => elf::R_AARCH64_RELATIVE.0,
                _ => elf::R_X86_64_RELATIVE.0,
            }
    }

    /// The loader puts the symbol's address there.
    fn is_absolute(&self, relocation: Relocation) -> bool {
        let kinds = match Arch::of(self.facts.machine) {
            Some(Arch::Arm64) => [elf::R_AARCH64_ABS64.0, elf::R_AARCH64_GLOB_DAT.0],
            _ => [elf::R_X86_64_64.0, elf::R_X86_64_GLOB_DAT.0],
        };
        kinds.contains(&relocation.kind)
    }

    /// The places at which the loader puts one of these addresses.
    pub(crate) fn pointers_to<'s>(&'s self, targets: &'s HashSet<u64>) -> impl Iterator<Item = u64> + 's {
        let relative = self.relocations.iter().filter(|r| self.is_relative(**r));
        relative
            .filter(|r| targets.contains(&(r.addend as u64)))
            .map(|r| r.place)
    }
}
