//! Seeds of the readers: small files that a reader finds in order, made of parts of real executables.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::super::go;
use super::{BASE, address_of, executable};

/// A Go executable of 64 bytes of code that is recognised.
fn image(build_info: &[u8]) -> Vec<u8> {
    let code = [0x90; 64];
    let text = address_of(&executable(&[(".text", &code, 0)]), ".text");
    let table = go::readers::pclntab_of(&["runtime.execute", "runtime.park_m"], 32, text);
    executable(&[
        (".text", &code, 0),
        (".gopclntab", &table, 0),
        (".go.buildinfo", build_info, 0),
        (".bss", &[], 0),
    ])
}

/// Build info as it was before go1.18: addresses of two strings, which are in it as well.
fn old_build_info() -> Vec<u8> {
    let at = address_of(&executable(&[(".go.buildinfo", &[0; 96], 0)]), ".go.buildinfo");
    let mut bytes = b"\xff Go buildinf:\x08\0".to_vec();
    for word in [at + 32, at + 48, at + 64, 8, at + 72, 8] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"go1.17.1path\tx\n");
    bytes
}

/// The beginning of each part of a pclntab, with its first eight functions.
fn pclntab(table: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 72;
    const FUNCTIONS: usize = 8;
    let word = |at: usize| Some(usize::from_le_bytes(table.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?));
    let mut bytes = table.get(..HEADER)?.to_vec();
    bytes[8..16].copy_from_slice(&(FUNCTIONS as u64).to_le_bytes());
    // The header's word for the start of the text: the section that follows the table in the reader's executable.
    bytes[24..32].copy_from_slice(&(BASE + 0x4000).to_le_bytes());
    for (place, length) in [(32, 512), (40, 256), (48, 512), (56, 1024)] {
        let from = word(place)?;
        let at = bytes.len() as u64;
        bytes[place..place + 8].copy_from_slice(&at.to_le_bytes());
        bytes.extend(table.get(from..from + length)?);
    }
    let (funcs, at) = (word(64)?, bytes.len() as u64);
    bytes[64..72].copy_from_slice(&at.to_le_bytes());
    let listed = FUNCTIONS * 8 + 4;
    let mut structs = Vec::<u8>::new();
    for i in 0..FUNCTIONS {
        let from = funcs + short(funcs + i * 8 + 4)? as usize;
        bytes.extend(short(funcs + i * 8)?.to_le_bytes());
        bytes.extend(((listed + structs.len()) as u32).to_le_bytes());
        structs.extend(table.get(from..from + 44)?);
    }
    bytes.extend(short(funcs + FUNCTIONS * 8)?.to_le_bytes());
    bytes.extend(structs);
    Some(bytes)
}

/// The first KB of the runtime's unit and all abbreviations, each with its length in front of it.
fn dwarf(entries: &[u8], abbreviations: &[u8]) -> Option<Vec<u8>> {
    const LENGTH: usize = 4096;
    let mut at = 0;
    while let Some(head) = entries.get(at..at + 4) {
        let length = u32::from_le_bytes(head.try_into().ok()?) as usize;
        let unit = entries.get(at..at + 4 + length)?;
        if unit.len() > LENGTH
            && unit[..64]
                .windows(9)
                .any(|name| name == b"\x01runtime\0" || name == b"\0runtime\0")
        {
            let mut part = unit[..LENGTH].to_vec();
            part[..4].copy_from_slice(&(LENGTH as u32 - 4).to_le_bytes());
            let mut bytes = Vec::new();
            for part in [&part[..], abbreviations, b"\0runtime.g\0"] {
                bytes.extend((part.len() as u16).to_le_bytes());
                bytes.extend_from_slice(part);
            }
            return Some(bytes);
        }
        at += 4 + length;
    }
    None
}

/// A recording of one target, one event of it and an orderly end.
fn recording() -> Vec<u8> {
    let preface = br#"{"agent":"0.1.0","kernel":"6.1","mono":1,"wall":2}"#;
    let mut bytes = b"WHYWAIT\0\x02\0\0\0".to_vec();
    bytes.extend((preface.len() as u32).to_le_bytes());
    bytes.extend(preface);
    let records: [(u32, &[u8]); 4] = [
        (
            2,
            br#"{"slot":1,"pid":2,"resource":[["a","b"]],"futures":{"1":"f"},"wait_reasons":["select"]}"#,
        ),
        (
            3,
            br#"{"slot":1,"frames":[[4096,{"function":"main.main","file":"main.go","line":3}]]}"#,
        ),
        (1, &[0; 192]),
        (4, br#"{"events":1,"lost":0}"#),
    ];
    for (kind, record) in records {
        bytes.extend([record.len() as u32, kind].map(u32::to_le_bytes).as_flattened());
        bytes.extend(record);
    }
    bytes
}

/// Makes the seeds of parts of two executables, a few KB each. The Go one must have its symbols and uncompressed DWARF.
#[test]
#[ignore = "writes agent/fuzz/seeds: cargo xtask fuzz --seeds GO RUST"]
fn make() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let (go, rust) = (
        fs::read(std::env::var("WHYWAIT_GO")?)?,
        fs::read(std::env::var("WHYWAIT_RUST")?)?,
    );
    let write = |reader: &str, name: &str, bytes: &[u8]| -> Result<(), Box<dyn Error>> {
        let folder = folder.join(reader);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), bytes)?)
    };
    let file = object::File::parse(&*go)?;
    let section = |name: &str| -> Result<Vec<u8>, Box<dyn Error>> {
        let section = file.section_by_name(name).ok_or_else(|| format!("no {name}"))?;
        Ok(section.uncompressed_data()?.into_owned())
    };
    let info = section(".go.buildinfo")?;
    write("image", "go-head", &go[..4096])?;
    write("image", "rust-head", &rust[..4096])?;
    write("image", "small", &image(&info))?;
    write("buildinfo", "go", &info)?;
    write("buildinfo", "old", &old_build_info())?;
    write("pclntab", "go", &pclntab(&section(".gopclntab")?).ok_or("pclntab")?)?;
    let dwarf = dwarf(&section(".debug_info")?, &section(".debug_abbrev")?);
    write("dwarf", "go", &dwarf.ok_or("no unit of the runtime")?)?;

    let code = |file: &object::File<'_>, all: &[u8], vaddr: u64, length: usize| -> Vec<u8> {
        let at = file.sections().find_map(|section| {
            let within = usize::try_from(vaddr.checked_sub(section.address())?).ok()?;
            (within < section.size() as usize).then_some(section.file_range()?.0 as usize + within)
        });
        let mut code = at.and_then(|at| all.get(at..at + length)).unwrap_or_default().to_vec();
        code.resize(length, 0xcc);
        code
    };
    let symbols: BTreeMap<&str, u64> = file
        .symbols()
        .filter_map(|s| Some((s.name().ok()?, s.address())))
        .collect();
    let found = go::readers::functions()
        .into_iter()
        .map(|name| symbols.get(name).copied().unwrap_or(0));
    let all: Vec<u8> = found.flat_map(|vaddr| code(&file, &go, vaddr, 192)).collect();
    write("code", "go", &all)?;

    let file = object::File::parse(&*rust)?;
    let mut tokio = vec![31];
    tokio.extend(b"_ZN5tokio7runtime4task3raw4pollE");
    tokio.truncate(32);
    // A vtable as it should be, and one that is not.
    tokio.extend([20, 0, 1, 2, 3, 4, 5, 6, 64, 32, 40, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let polls = file
        .symbols()
        .filter(|s| s.name().is_ok_and(|name| name.contains("tokio7runtime4task")));
    let code: Vec<u8> = polls
        .take(17)
        .flat_map(|s| code(&file, &rust, s.address(), 256))
        .collect();
    tokio.extend(code);
    write("tokio", "rust", &tokio)?;
    write("recording", "short", &recording())
}
