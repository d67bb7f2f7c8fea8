//! Where pclntab lies in a file, and which address all others in it are relative to.

use std::collections::HashSet;

use super::super::super::InspectError;
use super::super::super::elf::Binary;
use super::{GoSymbolizer, Header};

/// abi.Go118PCLnTabMagic, abi.Go120PCLnTabMagic (go1.26, internal/abi/symtab.go).
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
/// Sections that hold the table and nothing else: Go's own linker makes them, and GNU ld and lld keep the first.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Of a PIE they put it among all that the loader relocates (.data.rel.ro.*).
const SHARED: [&str; 2] = [".data.rel.ro", ".rodata"];
/// cmd/link aligns it to 32 bytes at least (go1.26, cmd/link/internal/ld/data.go).
const ALIGN: usize = 32;
/// Places in a shared section that look like its begin: one, and chance.
const MAX_PLACES: usize = 4;

pub(in super::super) fn read(binary: &Binary<'_>) -> Result<GoSymbolizer, InspectError> {
    let malformed = InspectError::Malformed { part: "pclntab" };
    let own = SECTIONS.iter().find_map(|name| binary.section_owned(name));
    match own.or_else(|| named(binary)) {
        Some((vaddr, table)) => placed(binary, vaddr, table).ok_or(malformed),
        None => {
            let found = SHARED.iter().find_map(|name| searched(binary, name));
            found.ok_or_else(|| InspectError::NotFound {
                what: "pclntab",
                reason: "there is no section, symbol or header of it".to_owned(),
            })
        }
    }
}

/// From runtime.pclntab to runtime.epclntab.
fn named(binary: &Binary<'_>) -> Option<(u64, Vec<u8>)> {
    let (mut begin, mut end) = (None, None);
    for symbol in binary.symbols() {
        match symbol.name {
            "runtime.pclntab" => begin = Some(symbol.vaddr),
            "runtime.epclntab" => end = Some(symbol.vaddr),
            _ => {}
        }
    }
    let begin = begin?;
    Some((begin, binary.read_owned(begin, end?.checked_sub(begin)?)?))
}

/// In a section that has other things too: up to its end, as the header does not say how long the table is.
fn searched(binary: &Binary<'_>, section: &str) -> Option<GoSymbolizer> {
    let (start, data) = binary.section_owned(section)?;
    let end = start.checked_add(data.len() as u64)?;
    let skew = (start as usize).wrapping_neg() % ALIGN;
    let places = (skew..data.len()).step_by(ALIGN);
    let places = places.filter(|at| header(&data[*at..]).is_some()).take(MAX_PLACES);
    let places: Vec<u64> = places.map(|at| start + at as u64).collect();
    drop(data);
    let mut tables = places.into_iter().filter_map(|vaddr| {
        let table = binary.read_owned(vaddr, end - vaddr)?;
        placed(binary, vaddr, table)
    });
    tables.next()
}

/// The table at `vaddr`, with the text start for which all functions lie in code.
fn placed(binary: &Binary<'_>, vaddr: u64, table: Vec<u8>) -> Option<GoSymbolizer> {
    let mut symbolizer = parse(table)?;
    let end = symbolizer.entry(symbolizer.header.functions)?;
    let fits = |text: &u64| {
        let last = text.checked_add(u64::from(end)).and_then(|e| e.checked_sub(1));
        *text != 0 && binary.is_code(*text) && last.is_some_and(|l| binary.is_code(l))
    };
    symbolizer.text = text_candidates(binary, vaddr, &symbolizer).into_iter().find(fits)?;
    Some(symbolizer)
}

fn header(table: &[u8]) -> Option<Header> {
    let magic = u32::from_le_bytes(table.get(..4)?.try_into().ok()?);
    let (quantum, pointer) = (*table.get(6)?, *table.get(7)?);
    if !MAGICS.contains(&magic) || table.get(4..6)? != [0, 0] || quantum == 0 || pointer != 8 {
        return None;
    }
    let word = |n: usize| -> Option<usize> {
        let at = 8 + n * 8;
        usize::try_from(u64::from_le_bytes(table.get(at..at + 8)?.try_into().ok()?)).ok()
    };
    let (functions, funcs) = (word(0)?, word(7)?);
    // The functab: pairs of offsets, and the end of the last function.
    let size = functions.checked_mul(8)?.checked_add(4)?;
    table.get(funcs..funcs.checked_add(size)?)?;
    Some(Header {
        quantum: quantum.into(),
        functions: Some(functions).filter(|functions| *functions > 0)?,
        names: word(3)?,
        units: word(4)?,
        files: word(5)?,
        pc_values: word(6)?,
        funcs,
    })
}

pub(super) fn parse(table: Vec<u8>) -> Option<GoSymbolizer> {
    Some(GoSymbolizer {
        header: header(&table)?,
        text: 0,
        table,
    })
}

/// Where runtime.text may be, best first: its symbol; moduledata.text; the header (until go1.25); the start of .text.
fn text_candidates(binary: &Binary<'_>, pclntab: u64, symbolizer: &GoSymbolizer) -> Vec<u64> {
    let symbol = binary.symbols().find(|s| s.name == "runtime.text").map(|s| s.vaddr);
    let header = symbolizer
        .table
        .get(24..32)
        .and_then(|b| b.try_into().ok())
        .map(u64::from_le_bytes);
    let section = binary.range_of(".text").map(|range| range.start);
    [
        symbol,
        module_text(binary, pclntab),
        pclntab
            .checked_add(24)
            .and_then(|at| binary.pointer(at))
            .filter(|p| *p != 0)
            .or(header),
        section,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Places that hold the address of pclntab: one, or two in a program with plugins.
const MAX_MODULES: usize = 64;

/// moduledata.text: in runtime.firstmoduledata, which begins with the address of pclntab. It follows pcHeader, six slices,
/// findfunctab, minpc and maxpc, and minpc equals the first function's address (go1.18–1.27, symtab.go, `moduledata`).
fn module_text(binary: &Binary<'_>, pclntab: u64) -> Option<u64> {
    let sections = [".go.module", ".noptrdata", ".data", ".data.rel.ro"];
    for (start, data) in sections.iter().filter_map(|name| binary.section(name)) {
        let here = |at: usize| start.checked_add(at as u64);
        let words = data.chunks_exact(8).enumerate();
        let stored = words.filter(|(_, word)| *word == pclntab.to_le_bytes());
        let stored = stored.filter_map(|(i, _)| here(i * 8)).take(MAX_MODULES);
        let end = here(data.len())?;
        // What the loader puts there is in the file only as a relocation.
        let targets = HashSet::from([pclntab]);
        let relocated = binary
            .pointers_to(&targets)
            .filter(|at| (start..end).contains(at))
            .take(MAX_MODULES);
        for module in stored.chain(relocated) {
            if binary.pointer(module) != Some(pclntab) {
                continue;
            }
            let word = |n: u64| binary.pointer(module.checked_add(n * 8)?);
            let (Some(minpc), Some(text)) = (word(20), word(22)) else {
                continue;
            };
            if minpc >= text && binary.is_code(text) {
                return Some(text);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_is_refused() {
        let header = |functions: u64, funcs: u64| {
            let mut table = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
            for word in [functions, 0, 0, 0, 0, 0, 0, funcs] {
                table.extend(word.to_le_bytes());
            }
            table
        };
        let cases = [
            vec![],
            vec![0xf1, 0xff, 0xff, 0xff],
            header(0, 72),
            header(1, 72),
            header(u64::MAX, 72),
            header(u64::MAX / 8, u64::MAX),
        ];
        for table in cases {
            assert!(parse(table.clone()).is_none(), "{table:x?}");
        }
    }
}
