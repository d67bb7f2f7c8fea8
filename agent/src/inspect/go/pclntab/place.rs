//! Where pclntab lies in a file, and which address all others in it are relative to.

use std::collections::HashSet;
use std::ops::Range;

use super::super::super::InspectError;
use super::super::super::elf::Binary;
use super::super::super::source::Windows;
use super::super::buildinfo::GoVersion;
use super::code::wrapper_id;
use super::{Form, GoSymbolizer, Header};

/// abi.Go118PCLnTabMagic, abi.Go120PCLnTabMagic (go1.26, internal/abi/symtab.go).
const MAGICS: [(u32, Form); 2] = [(0xffff_fff0, Form::Go118), (0xffff_fff1, Form::Go120)];
/// Sections that hold the table and nothing else: Go's own linker makes them, and GNU ld and lld keep the first.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Of a PIE they put it among all that the loader relocates (.data.rel.ro.*).
const SHARED: [&str; 2] = [".data.rel.ro", ".rodata"];
/// cmd/link aligns it to 32 bytes at least (go1.26, cmd/link/internal/ld/data.go).
const ALIGN: usize = 32;
/// Places in a shared section that look like its begin: one, and chance.
const MAX_PLACES: usize = 4;
/// Bytes of the header: magic, and eight words.
const HEADER: usize = 72;

pub(in super::super) fn read(binary: &Binary<'_>, version: &GoVersion) -> Result<GoSymbolizer, InspectError> {
    let malformed = InspectError::Malformed { part: "pclntab" };
    let own = SECTIONS.iter().find_map(|name| {
        let section = binary.section(name)?;
        Some((section.address, section.file_range()?))
    });
    match own.or_else(|| named(binary)) {
        Some((vaddr, place)) => {
            placed(binary, version, vaddr, place.clone()).ok_or_else(|| match foreign(binary, place) {
                Some(magic) => InspectError::Obfuscated {
                    sign: format!("its function table begins with {magic:#x}, which no Go toolchain writes"),
                },
                None => malformed,
            })
        }
        None => {
            let found = SHARED.iter().find_map(|name| searched(binary, version, name));
            found.ok_or_else(|| InspectError::NotFound {
                what: "pclntab",
                reason: "there is no section, symbol or header of it".to_owned(),
            })
        }
    }
}

/// The magic of a table that is in order but for it.
fn foreign(binary: &Binary<'_>, place: Range<u64>) -> Option<u32> {
    let head = binary.file.copy(place.start, HEADER as u64)?;
    let magic = u32::from_le_bytes(*head.first_chunk()?);
    let header = laid_out(&head, Form::Go120, place.end - place.start)?;
    (header.quantum <= 4 && !MAGICS.iter().any(|(known, _)| *known == magic)).then_some(magic)
}

/// From runtime.pclntab to runtime.epclntab: address, and place in the file.
fn named(binary: &Binary<'_>) -> Option<(u64, Range<u64>)> {
    let (mut begin, mut end) = (None, None);
    binary.each_symbol(|symbol| match symbol.name {
        "runtime.pclntab" => begin = Some(symbol.vaddr),
        "runtime.epclntab" => end = Some(symbol.vaddr),
        _ => {}
    });
    let begin = begin?;
    let from = binary.file_offset(begin)?;
    Some((begin, from..from.checked_add(end?.checked_sub(begin)?)?))
}

/// In a section that has other things too: up to its end, as the header does not say how long the table is.
fn searched(binary: &Binary<'_>, version: &GoVersion, section: &str) -> Option<GoSymbolizer> {
    let section = binary.section(section)?;
    let (start, range) = (section.address, section.file_range()?);
    let mut places = Vec::new();
    // A header at the end of one stretch is found whole in the next.
    const OVERLAP: usize = HEADER.next_multiple_of(ALIGN);
    binary.scan(&section.name, OVERLAP, |vaddr, bytes| {
        let skew = (vaddr as usize).wrapping_neg() % ALIGN;
        for at in (skew..bytes.len().saturating_sub(HEADER - 1)).step_by(ALIGN) {
            let vaddr = vaddr + at as u64;
            let rest = (range.end - range.start).saturating_sub(vaddr - start);
            if header(&bytes[at..], rest).is_some() && places.last() != Some(&vaddr) {
                places.push(vaddr);
            }
        }
        (places.len() >= MAX_PLACES).then_some(())
    });
    let mut tables = places.into_iter().take(MAX_PLACES).filter_map(|vaddr| {
        let from = range.start.checked_add(vaddr - start)?;
        placed(binary, version, vaddr, from..range.end)
    });
    tables.next()
}

/// The table at `vaddr`, with the text start for which all functions lie in code.
fn placed(binary: &Binary<'_>, version: &GoVersion, vaddr: u64, place: Range<u64>) -> Option<GoSymbolizer> {
    let mut symbolizer = parse(&binary.file, place)?;
    let end = symbolizer.on(&binary.file).entry(symbolizer.header.functions)?;
    let fits = |text: &u64| {
        let last = text.checked_add(u64::from(end)).and_then(|e| e.checked_sub(1));
        *text != 0 && binary.is_code(*text) && last.is_some_and(|l| binary.is_code(l))
    };
    let module = module(binary, vaddr);
    symbolizer.text = text_candidates(binary, vaddr, module)
        .into_iter()
        .flatten()
        .find(fits)?;
    symbolizer.wrapper = wrapper_id(version);
    symbolizer.data = module.and_then(|module| {
        let data = binary.pointer(module.checked_add(gofunc(symbolizer.header.form, version) * 8)?)?;
        binary.file_offset(data)
    });
    Some(symbolizer)
}

/// Which word of moduledata is gofunc, the address of go:func.* (runtime/symtab.go): go1.20 added covctrs and ecovctrs before
/// it, go1.27 typedesclen, itaboffset and itabsize.
fn gofunc(form: Form, version: &GoVersion) -> u64 {
    match form {
        Form::Go118 => 38,
        Form::Go120 if version.minor < 27 => 40,
        Form::Go120 => 43,
    }
}

/// The header at the begin of `bytes`, of a table that is no longer than `size`.
fn header(bytes: &[u8], size: u64) -> Option<Header> {
    let magic = u32::from_le_bytes(*bytes.first_chunk()?);
    let (_, form) = MAGICS.iter().find(|(known, _)| *known == magic)?;
    laid_out(bytes, *form, size)
}

fn laid_out(bytes: &[u8], form: Form, size: u64) -> Option<Header> {
    let (quantum, pointer) = (*bytes.get(6)?, *bytes.get(7)?);
    if bytes.get(4..6)? != [0, 0] || quantum == 0 || pointer != 8 {
        return None;
    }
    let word = |n: usize| -> Option<u64> {
        let at = 8 + n * 8;
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let (functions, funcs) = (word(0)?, word(7)?);
    // The functab: pairs of offsets, and the end of the last function.
    let listed = functions.checked_mul(8)?.checked_add(4)?;
    if functions == 0 || funcs.checked_add(listed)? > size {
        return None;
    }
    Some(Header {
        form,
        quantum: quantum.into(),
        functions,
        names: word(3)?,
        units: word(4)?,
        files: word(5)?,
        pc_values: word(6)?,
        funcs,
    })
}

pub(super) fn parse(file: &Windows<'_>, place: Range<u64>) -> Option<GoSymbolizer> {
    let end = place.end.min(file.size());
    let head = file.copy(place.start, HEADER as u64)?;
    Some(GoSymbolizer {
        header: header(&head, end.checked_sub(place.start)?)?,
        place: place.start..end,
        text: 0,
        data: None,
        wrapper: 0,
    })
}

/// Where runtime.text may be, best first: its symbol; moduledata.text; the header (until go1.25); the start of .text.
fn text_candidates(binary: &Binary<'_>, pclntab: u64, module: Option<u64>) -> [Option<u64>; 4] {
    let symbol = binary.symbols(|symbol| (symbol.name == "runtime.text").then_some(symbol.vaddr));
    let at = pclntab.checked_add(24);
    let relocated = at.and_then(|at| binary.pointer(at)).filter(|text| *text != 0);
    let header = || at.and_then(|at| binary.word(at));
    let section = binary.range_of(".text").map(|range| range.start);
    let text = module.and_then(|module| binary.pointer(module.checked_add(TEXT * 8)?));
    [symbol, text, relocated.or_else(header), section]
}

/// Places that hold the address of pclntab: one, or two in a program with plugins.
const MAX_MODULES: usize = 64;
/// Words of moduledata: it begins with pcHeader, six slices and findfunctab (go1.18–1.27, symtab.go, `moduledata`).
const MINPC: u64 = 20;
const TEXT: u64 = 22;

/// runtime.firstmoduledata, which begins with the address of pclntab, and whose minpc, the first function's address, is not before
/// its text.
fn module(binary: &Binary<'_>, pclntab: u64) -> Option<u64> {
    // What the loader puts there is in the file only as a relocation.
    let targets = HashSet::from([pclntab]);
    let relocated: Vec<u64> = binary.pointers_to(&targets).take(MAX_MODULES).collect();
    let is_one = |at: u64| {
        let word = |n: u64| binary.pointer(at.checked_add(n * 8)?);
        let (minpc, text) = (word(MINPC)?, word(TEXT)?);
        (binary.pointer(at) == Some(pclntab) && minpc >= text && binary.is_code(text)).then_some(at)
    };
    let wanted = pclntab.to_le_bytes();
    for name in [".go.module", ".noptrdata", ".data", ".data.rel.ro"] {
        let stored = binary.scan(name, 8, |vaddr, bytes| {
            let places = memchr::memmem::find_iter(bytes, &wanted).map(|at| vaddr + at as u64);
            places.filter(|at| at % 8 == 0).take(MAX_MODULES).find_map(is_one)
        });
        let within = binary.range_of(name).unwrap_or(0..0);
        let relocated = || {
            relocated
                .iter()
                .filter(|at| within.contains(at))
                .find_map(|at| is_one(*at))
        };
        if let Some(found) = stored.or_else(relocated) {
            return Some(found);
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
            let place = 0..table.len() as u64;
            assert!(parse(&Windows::new(&table), place).is_none(), "{table:x?}");
        }
    }
}
