//! Every reader of hostile bytes by itself, for what feeds it: the fuzz targets of agent/fuzz, and a test with damaged seeds.
//!
//! A reader of one section gets the bytes as that section of an executable which is otherwise in order, so that nothing has to
//! be guessed right before it is reached.

#[cfg(test)]
mod seed;

use super::elf::Binary;
use super::{go, tokio};

/// Reads bytes, and neither panics nor takes longer or more memory than their number allows for.
pub type Reader = fn(&[u8]);

/// All readers; the name is that of the fuzz target and of the folder of seeds.
pub const READERS: [(&str, Reader); 6] = [
    ("image", image),
    ("buildinfo", go::readers::buildinfo),
    ("pclntab", go::readers::pclntab),
    ("dwarf", go::readers::dwarf),
    ("code", go::readers::code),
    ("tokio", tokio::readers::tokio),
];

/// A whole executable.
fn image(bytes: &[u8]) {
    let _ = super::inspect(bytes);
    let _ = super::go_fields(bytes);
    if let Ok(binary) = Binary::parse(&bytes) {
        let segments = binary.facts.segments.clone();
        for at in segments.iter().flat_map(|s| [s.vaddr, s.vaddr + s.file_size / 2]) {
            let _ = (
                binary.read_up_to(at, u64::MAX),
                binary.pointer(at),
                binary.file_offset(at),
            );
        }
        binary.each_symbol(|_| {});
        let _ = binary.facts.bias(0);
    }
}

/// Where [`executable`] is loaded.
pub(super) const BASE: u64 = 0x40_0000;
/// Where its sections without bytes begin, and how large each is.
pub(super) const ZEROED: u64 = 0x4000_0000;
pub(super) const ZEROED_SIZE: u64 = 0x10_0000;

/// An executable of these sections, all of it in one segment at [`BASE`]; those without bytes follow in a second, at
/// [`ZEROED`]. The third part of a section is sh_link (its own number starts at 1).
pub fn executable(sections: &[(&str, &[u8], u32)]) -> Vec<u8> {
    const HEADERS: usize = 64 + 2 * 56;
    let mut bytes = vec![0; HEADERS];
    let (mut names, mut table) = (vec![0u8], vec![[0u8; 64]]);
    let mut zeroed = ZEROED;
    for (name, content, link) in sections {
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let kind: u32 = match *name {
            ".symtab" => 2,
            ".strtab" => 3,
            _ if content.is_empty() => 8,
            _ => 1,
        };
        let (address, size) = match kind {
            8 => (zeroed, ZEROED_SIZE),
            _ => (BASE + bytes.len() as u64, content.len() as u64),
        };
        zeroed += if kind == 8 { ZEROED_SIZE } else { 0 };
        table.push(section(names.len(), kind, address, bytes.len(), size, *link));
        names.extend(name.bytes().chain([0]));
        bytes.extend_from_slice(content);
    }
    table.push(section(names.len(), 3, 0, bytes.len(), names.len() as u64 + 10, 0));
    names.extend(b".shstrtab\0");
    bytes.extend_from_slice(&names);
    let at = bytes.len() as u64;
    bytes.extend(table.as_flattened());
    let mut head = Vec::new();
    head.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    for word in [BASE, 64, at] {
        head.extend(word.to_le_bytes());
    }
    head.extend([0; 4]);
    for half in [64, 56, 2, 64, table.len() as u16, table.len() as u16 - 1] {
        head.extend(half.to_le_bytes());
    }
    let whole = bytes.len() as u64;
    for (flags, vaddr, stored, size) in [(5u32, BASE, whole, whole), (6, ZEROED, 0, zeroed - ZEROED)] {
        head.extend([1u32, flags].map(u32::to_le_bytes).as_flattened());
        for word in [0, vaddr, vaddr, stored, size, 4096] {
            head.extend(word.to_le_bytes());
        }
    }
    bytes[..HEADERS].copy_from_slice(&head);
    bytes
}

fn section(name: usize, kind: u32, address: u64, offset: usize, size: u64, link: u32) -> [u8; 64] {
    let entry = if kind == 2 { 24u64 } else { 0 };
    let mut header = Vec::with_capacity(64);
    header.extend([name as u32, kind].map(u32::to_le_bytes).as_flattened());
    for word in [2, address, offset as u64, size] {
        header.extend(word.to_le_bytes());
    }
    header.extend([link, 0].map(u32::to_le_bytes).as_flattened());
    header.extend([1, entry].map(u64::to_le_bytes).as_flattened());
    header.try_into().unwrap_or([0; 64])
}

/// The address of section `number` (from 1) of an [`executable`].
pub(super) fn address_of(executable: &[u8], name: &str) -> u64 {
    let binary = Binary::parse(&executable).ok();
    binary
        .and_then(|binary| binary.range_of(name))
        .map_or(0, |range| range.start)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn seeds(reader: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(reader);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut seeds: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        seeds
    }

    /// Where the parts of an executable begin and end.
    fn edges(bytes: &[u8]) -> Vec<usize> {
        let Ok(binary) = Binary::parse(&bytes) else {
            return Vec::new();
        };
        let word = |at: usize| usize::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let segments = binary.facts.segments.iter();
        let ends = segments.flat_map(|s| [s.file_offset as usize, (s.file_offset + s.file_size) as usize]);
        let sections = (word(40)..bytes.len().saturating_sub(63)).step_by(64);
        let sections = sections.flat_map(|at| [at, word(at + 24), word(at + 24).saturating_add(word(at + 32))]);
        ends.chain(sections).filter(|at| *at <= bytes.len()).collect()
    }

    /// Cut short at every power of two and at every edge, and with bytes changed by numbers that are the same each time.
    #[test]
    fn damaged_seeds_are_read_without_panic() {
        let mut random = 0x2545_f491_4f6c_dd1du64;
        for (name, reader) in READERS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                let bytes = fs::read(&seed).unwrap();
                reader(&bytes);
                let powers = (0..usize::BITS)
                    .map(|power| 1 << power)
                    .take_while(|at| *at < bytes.len());
                for end in powers.chain(edges(&bytes)).chain([0]) {
                    reader(&bytes[..end]);
                }
                for round in 0..64 {
                    let mut damaged = bytes.clone();
                    for _ in 0..1 << (round % 6) {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        // Every other round only what stands in front is hit.
                        let within = if round % 2 == 0 {
                            bytes.len().min(256)
                        } else {
                            bytes.len()
                        };
                        damaged[(random >> 8) as usize % within] = random as u8;
                    }
                    reader(&damaged);
                }
            }
        }
    }

    #[test]
    fn headers_that_claim_too_much_are_refused() {
        let good = executable(&[(".text", &[0x90; 64], 0)]);
        let check = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            Binary::parse(&bytes).err()
        };
        assert_eq!(check(0, b"\x7f"), None);
        // A segment whose end is beyond all addresses, in memory and in the file.
        let malformed = Some(crate::inspect::InspectError::Malformed { part: "PT_LOAD" });
        assert_eq!(check(64 + 16, &u64::MAX.to_le_bytes()), malformed);
        assert_eq!(check(64 + 8, &u64::MAX.to_le_bytes()), malformed);
        assert_eq!(check(64 + 40, &u64::MAX.to_le_bytes()), malformed);
    }

    /// 500 relocation sections that are all the same 48 KB.
    #[test]
    fn relocations_are_not_read_twice() {
        let data = vec![0u8; 48 << 10];
        let one = (".rela", &data[..24], 0);
        let mut bytes = executable(&vec![one; 500]);
        let table = bytes.len() - 502 * 64;
        let offset = bytes.len() as u64;
        bytes.extend(&data);
        for header in bytes[table..].as_chunks_mut::<64>().0.iter_mut().take(501).skip(1) {
            header[4..8].copy_from_slice(&4u32.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
        }
        let refused = Some(crate::inspect::InspectError::Malformed { part: "relocations" });
        assert_eq!(Binary::parse(&bytes).err(), refused);
    }
}
