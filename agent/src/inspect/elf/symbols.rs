//! The symbols of .symtab.

use object::elf;

use super::super::source::Windows;
use super::headers::Section;
use super::{Binary, long, short, word};

/// A symbol of .symtab that has an address.
pub(crate) struct Symbol<'n> {
    pub(crate) name: &'n str,
    pub(crate) vaddr: u64,
    pub(crate) size: u64,
    pub(crate) is_function: bool,
}

/// Symbols that are read at once.
const BATCH: u64 = 1024;
const SYMBOL: u64 = 24;
/// Bytes of a name; generic Rust has some of a few KB.
const MAX_NAME: usize = 64 << 10;
/// Names overlap when one is the other's end, which saves a linker little: all of them are no longer than this many tables.
const MAX_OVERLAP: u64 = 4;

impl Binary<'_> {
    /// Shows `visit` the symbols of .symtab that have a name and an address, until it has an answer. It ends where names are
    /// longer, all in all, than a linker makes them: each is searched for its end.
    pub(crate) fn symbols<T>(&self, visit: impl FnMut(&Symbol<'_>) -> Option<T>) -> Option<T> {
        let table = self.sections.iter().find(|s| s.kind == elf::SHT_SYMTAB.0)?;
        let strings = self.sections.get(table.link as usize)?;
        read(&self.file, table, strings, visit)
    }

    /// Shows `visit` every symbol.
    pub(crate) fn each_symbol(&self, mut visit: impl FnMut(&Symbol<'_>)) {
        self.symbols(|symbol| -> Option<()> {
            visit(symbol);
            None
        });
    }

    /// st_value of a dynamic symbol (0 when undefined).
    pub(crate) fn dynamic_symbol(&self, index: u32) -> Option<u64> {
        let table = self.sections.iter().find(|s| s.kind == elf::SHT_DYNSYM.0)?;
        let at = u64::from(index) * SYMBOL;
        let within = at + SYMBOL <= table.size;
        within.then(|| self.file.long(table.offset.checked_add(at + 8)?))?
    }
}

fn read<T>(
    file: &Windows<'_>,
    table: &Section,
    strings: &Section,
    mut visit: impl FnMut(&Symbol<'_>) -> Option<T>,
) -> Option<T> {
    let (table, strings) = (table.file_range()?, strings.file_range()?);
    let mut left = (strings.end - strings.start).saturating_mul(MAX_OVERLAP);
    let mut name = Vec::new();
    let mut at = table.start;
    while at < table.end {
        let size = (table.end - at).min(BATCH * SYMBOL);
        let batch = file.copy(at, size)?;
        for entry in batch.as_chunks::<{ SYMBOL as usize }>().0 {
            let section = elf::SymbolSection(short(entry, 6));
            let is_defined = !section.is_special() || section == elf::SHN_XINDEX;
            let kind = elf::SymbolType(entry[4] & 0xf);
            if !is_defined || !matches!(kind, elf::STT_FUNC | elf::STT_OBJECT | elf::STT_NOTYPE) {
                continue;
            }
            let from = strings.start.checked_add(word(entry, 0).into())?;
            let is_named = file.name(from, strings.end, MAX_NAME, &mut name).is_some();
            left = left.checked_sub(name.len() as u64)?;
            let Some(text) = is_named.then(|| std::str::from_utf8(&name).ok()).flatten() else {
                continue;
            };
            let answer = visit(&Symbol {
                name: text,
                vaddr: long(entry, 8),
                size: long(entry, 16),
                is_function: kind == elf::STT_FUNC,
            });
            if answer.is_some() {
                return answer;
            }
        }
        at += size;
    }
    None
}
