//! Readers of the parts of a Go executable, each by itself ([`crate::inspect::readers`]).

use std::collections::BTreeSet;

use super::super::arch::Arch;
use super::super::elf::Binary;
use super::super::readers::{BASE, address_of, executable};
use super::hooks::GoHook;
use super::{buildinfo as info, code as globals, hooks, layouts, pclntab as table, tls};

/// The inline form of build info: go1.26.0, no modules.
const INFO: &[u8] = b"\xff Go buildinf:\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08go1.26.0\0";

fn newest() -> info::GoVersion {
    info::parse_version("go1.27.0").expect("a version")
}

/// The section .go.buildinfo.
pub(in crate::inspect) fn buildinfo(bytes: &[u8]) {
    let file = executable(&[(".go.buildinfo", bytes, 0)]);
    if let Ok(binary) = Binary::parse(&file) {
        let _ = info::read(&binary);
    }
}

/// The section .gopclntab, and one that has pclntab among other things.
pub(in crate::inspect) fn pclntab(bytes: &[u8]) {
    for section in [".gopclntab", ".data.rel.ro"] {
        pclntab_in(section, bytes);
    }
}

fn pclntab_in(section: &str, bytes: &[u8]) {
    const CODE: u64 = 1 << 20;
    let text = vec![0xcc; CODE as usize];
    let file = executable(&[(section, bytes, 0), (".text", &text, 0)]);
    let Ok(binary) = Binary::parse(&file) else {
        return;
    };
    let Ok(symbols) = table::read(&binary, &newest()) else {
        return;
    };
    let _ = symbols.functions_named(&binary.file, &["runtime.execute", "main.main"]);
    let text = address_of(&file, ".text");
    for at in (text..text + CODE).step_by(64 << 10).chain(text..text + 64) {
        let _ = (symbols.lookup(&file, at), symbols.function_range(&file, at));
        let _ = (symbols.code_at(&file, at), symbols.inlined(&file, at));
    }
}

/// The sections .debug_info, .debug_abbrev and .debug_str, each with its length, 16 bits, in front of it.
pub(in crate::inspect) fn dwarf(bytes: &[u8]) {
    let mut rest = bytes;
    let mut part = || {
        let (length, after) = rest.split_first_chunk().unwrap_or((&[0, 0], &[]));
        let (part, after) = after.split_at(after.len().min(u16::from_le_bytes(*length).into()));
        rest = after;
        part
    };
    let (entries, abbreviations, strings) = (part(), part(), part());
    let file = executable(&[
        (".go.buildinfo", INFO, 0),
        (".debug_info", entries, 0),
        (".debug_abbrev", abbreviations, 0),
        (".debug_str", strings, 0),
    ]);
    if let Ok(binary) = Binary::parse(&file) {
        let _ = super::fields(&binary);
    }
}

/// The code of all functions in which something is looked for, all of them equally long.
pub(in crate::inspect) fn code(bytes: &[u8]) {
    let names = functions();
    let names: Vec<&str> = names.into_iter().collect();
    let size = (bytes.len() / names.len()).max(1);
    let code = [bytes, &[0xcc]].concat();
    let sections: Vec<(&str, &[u8], u32)> = vec![
        (".text", &code, 0),
        (".rodata", &[0; 4096], 0),
        (".noptrdata", &[0; 4096], 0),
        (".data", &[0; 4096], 0),
        (".bss", &[], 0),
        (".noptrbss", &[], 0),
    ];
    let text = address_of(&executable(&sections), ".text");
    let pclntab = pclntab_of(&names, size as u32, text);
    let file = executable(&[&sections[..], &[(".gopclntab", &pclntab, 0)]].concat());
    let Ok(binary) = Binary::parse(&file) else {
        return;
    };
    let (Ok(symbols), Some(version)) = (table::read(&binary, &newest()), info::parse_version("go1.26.0")) else {
        return;
    };
    let _ = tls::find(&binary, &symbols);
    for arch in [Arch::Amd64, Arch::Arm64] {
        let _ = hooks::sites(&binary, arch, &symbols);
        if let Ok(offsets) = layouts::of_release(&version, arch.name()) {
            let _ = globals::find(&binary, arch, &symbols, &offsets, &version);
        }
    }
}

/// Names of the functions in which something is looked for.
pub(in crate::inspect) fn functions() -> BTreeSet<&'static str> {
    let hooks = GoHook::ALL.iter().flat_map(|hook| hook.candidates()).copied();
    globals::functions()
        .into_iter()
        .chain(hooks)
        .chain([tls::FUNCTION])
        .collect()
}

/// A pclntab of these functions, each `size` bytes long, the first at `text`.
pub(in crate::inspect) fn pclntab_of(names: &[&str], size: u32, text: u64) -> Vec<u8> {
    const HEADER: usize = 72;
    const FUNC: usize = 44;
    debug_assert!(text >= BASE);
    let (mut strings, mut table, mut structs) = (vec![0u8], Vec::new(), Vec::new());
    let listed = names.len() * 8 + 4;
    for (i, name) in (0u32..).zip(names) {
        let func = listed + i as usize * FUNC;
        table.extend([i * size, func as u32].map(u32::to_le_bytes).as_flattened());
        let mut words = [0u32; FUNC / 4];
        (words[0], words[1]) = (i * size, strings.len() as u32);
        structs.extend(words.map(u32::to_le_bytes).as_flattened());
        strings.extend(name.bytes().chain([0]));
    }
    table.extend((names.len() as u32 * size).to_le_bytes());
    let end = HEADER + strings.len();
    let mut bytes = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    for word in [names.len(), 0, text as usize, HEADER, end, end, end, end] {
        bytes.extend((word as u64).to_le_bytes());
    }
    [bytes, strings, table, structs].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::InspectError;
    use crate::inspect::go::dwarf::{Sections, Types, Unreadable};

    /// The parts fit: what the readers are given is taken as far as it is meant to be.
    #[test]
    fn a_section_that_is_in_order_is_read() {
        let file = executable(&[(".go.buildinfo", INFO, 0)]);
        let binary = Binary::parse(&file).unwrap();
        assert_eq!(info::read(&binary).unwrap().unwrap().version.raw, "go1.26.0");

        let code = vec![0x90; 64];
        let text = address_of(&executable(&[(".text", &code, 0)]), ".text");
        let table = pclntab_of(&["main.main", "runtime.execute"], 32, text);
        let file = executable(&[(".text", &code, 0), (".gopclntab", &table, 0)]);
        let symbols = super::table::read(&Binary::parse(&file).unwrap(), &newest()).unwrap();
        assert_eq!(symbols.lookup(&file, text + 40).unwrap().function, "runtime.execute");
    }

    /// Where GNU ld and lld put it in a PIE: between other things, behind what only looks like its begin.
    #[test]
    fn pclntab_is_found_in_a_section_that_it_shares() {
        let code = vec![0x90; 64];
        let text = address_of(&executable(&[(".text", &code, 0)]), ".text");
        let table = pclntab_of(&["main.main", "runtime.execute"], 32, text);
        // Its functions are in no code.
        let chance = pclntab_of(&["main.chance"], 1 << 24, text);
        let at = address_of(
            &executable(&[(".text", &code, 0), (".data.rel.ro", &[0; 8], 0)]),
            ".data.rel.ro",
        );
        let pad = |bytes: &mut Vec<u8>| bytes.resize((at as usize + bytes.len()).next_multiple_of(32) - at as usize, 0);
        let mut shared = vec![1; 8];
        for part in [&chance, &table] {
            pad(&mut shared);
            shared.extend(part);
        }
        shared.extend([7; 100]);
        let file = executable(&[(".text", &code, 0), (".data.rel.ro", &shared, 0)]);
        let symbols = super::table::read(&Binary::parse(&file).unwrap(), &newest()).unwrap();
        assert_eq!(symbols.lookup(&file, text + 40).unwrap().function, "runtime.execute");
        let without = executable(&[(".text", &code, 0), (".data.rel.ro", &[1; 8], 0)]);
        let error = super::table::read(&Binary::parse(&without).unwrap(), &newest()).err();
        assert!(matches!(error, Some(InspectError::NotFound { .. })), "{error:?}");
    }

    /// What garble makes is no broken file, and what gccgo makes is no Go program that is known.
    #[test]
    fn what_is_another_is_called_so() {
        let code = vec![0x90; 64];
        let text = address_of(&executable(&[(".text", &code, 0)]), ".text");
        let good = pclntab_of(&["main.main", "runtime.execute"], 32, text);
        let check = |table: &[u8], info: &[u8], expected: fn(&InspectError) -> bool| {
            let sections = [
                (".text", &code[..], 0),
                (".gopclntab", table, 0),
                (".go.buildinfo", info, 0),
            ];
            let found = crate::inspect::inspect(&executable(&sections)).err();
            assert!(found.as_ref().is_some_and(expected), "{found:?}");
        };
        let obfuscated = |error: &InspectError| matches!(error, InspectError::Obfuscated { .. });
        let mut table = good.clone();
        table[..4].copy_from_slice(&0x1234_5678u32.to_le_bytes());
        check(&table, INFO, obfuscated);
        let mut unknown = INFO.to_vec();
        unknown[32] = 7;
        unknown.truncate(33);
        unknown.extend(b"unknown\0");
        check(&good, &unknown, obfuscated);
        // A table that is broken besides is broken.
        table[4] = 1;
        check(&table, INFO, |error| {
            *error == InspectError::Malformed { part: "pclntab" }
        });

        let file = executable(&[(".text", &code, 0), (".go_export", b"v3;", 0)]);
        let other = crate::inspect::inspect(&file).err();
        assert!(
            matches!(other, Some(InspectError::OtherToolchain { toolchain: "gccgo", .. })),
            "{other:?}"
        );
    }

    /// Two hundred thousand functions of which each has a megabyte for a name: a name is read as far as it could be one that is wanted.
    #[test]
    fn endless_names_end() {
        let mut table = pclntab_of(&["a"], 1, BASE);
        let (functions, funcs) = (200_000u64, table.len() as u64);
        table[8..16].copy_from_slice(&functions.to_le_bytes());
        table[64..72].copy_from_slice(&funcs.to_le_bytes());
        // All of them are the same: entry 0, and a struct whose name is what follows.
        let at = funcs as u32 + functions as u32 * 8 + 4;
        table.extend(
            [0, functions as u32 * 8 + 4]
                .map(u32::to_le_bytes)
                .as_flattened()
                .repeat(functions as usize),
        );
        table.extend(1u32.to_le_bytes());
        table.extend([0, at - 72 + 44].map(u32::to_le_bytes).as_flattened());
        table.extend(vec![b'x'; 1 << 20]);
        let code = [0x90; 64];
        let file = executable(&[(".text", &code, 0), (".gopclntab", &table, 0)]);
        let binary = Binary::parse(&file).unwrap();
        let symbols = super::table::read(&binary, &newest()).unwrap();
        assert_eq!(symbols.len(), functions);
        assert!(symbols.functions_named(&binary.file, &["runtime.execute"]).is_empty());
    }

    /// A unit of the runtime (version 4) of these entries behind its own, which has abbreviation 1.
    fn unit(entries: &[u8], abbreviations: &[u8]) -> Vec<u8> {
        let body = [&b"\x04\0\0\0\0\0\x08\x01runtime\0"[..], entries, &[0]].concat();
        let info = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        // Its only attribute is a name, DW_FORM_string.
        let abbreviations = [b"\x01\x11\x01\x03\x08\0\0", abbreviations, b"\0"].concat();
        executable(&[(".debug_info", &info, 0), (".debug_abbrev", &abbreviations, 0)])
    }

    fn types<T>(file: &[u8], ask: impl FnOnce(Result<Types<'_>, Unreadable>) -> T) -> T {
        let binary = Binary::parse(&file).unwrap();
        let sections = Sections::of(&binary).unwrap();
        ask(Types::index(&sections))
    }

    /// A struct with a field of each kind, and one that has itself for ten embedded fields: 10^16 ways to a field of it.
    #[test]
    fn structs_that_embed_themselves_end() {
        let member =
            |name: &[u8], embedded: u8, of: u32| [&[3], name, &[0], &of.to_le_bytes()[..], &[8, embedded]].concat();
        let structure = |name: &[u8], members: &[Vec<u8>]| [&[2], name, &[0, 16][..], &members.concat(), &[0]].concat();
        // Both entries' places, behind the unit's header and its first entry.
        let first = 4 + 7 + 9;
        let sound = structure(b"runtime.m", &[member(b"id", 0, first)]);
        let second = first + sound.len() as u32;
        let hostile = structure(b"runtime.g", &vec![member(b"g", 1, second); 10]);
        // DW_TAG_structure_type: name, byte_size (data1); DW_TAG_member: name, type (ref4), location (data1), embedded (flag).
        let abbreviations = b"\x02\x13\x01\x03\x08\x0b\x0b\0\0\x03\x0d\0\x03\x08\x49\x13\x38\x0b\x83\x52\x0c\0\0";
        types(&unit(&[sound, hostile].concat(), abbreviations), |types| {
            let types = types.unwrap();
            assert_eq!(types.field("runtime.m", "id").unwrap().offset, 8);
            assert_eq!(types.size_of("runtime.g"), Some(16));
            assert_eq!(types.field("runtime.g", "goid"), None);
        });
    }

    /// 60,000 attributes that take no bytes, in each of as many entries of a byte.
    #[test]
    fn attributes_without_bytes_are_counted() {
        // DW_AT_byte_size as DW_FORM_implicit_const.
        let abbreviation = [&[2, 0x2e, 0][..], &[0x0b, 0x21, 0].repeat(60_000), &[0, 0]].concat();
        types(&unit(&vec![2; 60_000], &abbreviation), |types| {
            assert!(matches!(types, Err(Unreadable::TooMuch)));
        });
    }
}
