//! The ELF file: addresses ↔ file offsets, sections, symbols, relocations, build ids.
//!
//! Nothing of the file is kept but its headers and its relocations: what is asked for is read when it is, and what may be large,
//! such as constants with the assets of a program in them, is looked at in stretches.

mod functions;
mod headers;
mod relocations;
mod symbols;

use std::ops::Range;

use object::elf;
use object::read::{CompressedData, CompressionFormat};

use super::InspectError;
use super::source::{Bytes, Windows};
pub(crate) use functions::Functions;
pub(crate) use headers::Section;
pub(crate) use relocations::Relocation;

/// How the executable is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfKind {
    /// ET_EXEC: link-time addresses are run-time addresses.
    Exec,
    /// ET_DYN: the load bias must be found from /proc/PID/auxv.
    Pie,
}

/// One PT_LOAD program header, in link-time addresses and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSegment {
    pub vaddr: u64,
    pub memory_size: u64,
    pub file_offset: u64,
    pub file_size: u64,
    pub executable: bool,
    pub writable: bool,
}

/// What the ELF headers and notes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfFacts {
    pub kind: ElfKind,
    /// e_entry: link-time address of the first instruction.
    pub entry: u64,
    /// e_machine (62 is x86-64, 183 is AArch64).
    pub machine: u16,
    /// NT_GNU_BUILD_ID, hex.
    pub gnu_build_id: Option<String>,
    /// The Go linker's own id, four parts joined by slashes.
    pub go_build_id: Option<String>,
    /// PT_LOAD segments in file order.
    pub segments: Vec<LoadSegment>,
    /// No PT_INTERP: no dynamic loader runs.
    pub is_static: bool,
}

impl ElfFacts {
    /// The bias to add to link-time addresses in a process whose program's first instruction is at `entry`; None when that is not
    /// this executable's.
    pub fn bias(&self, entry: u64) -> Option<u64> {
        // The smallest page there is; the kernel maps whole ones.
        const PAGE: u64 = 4096;
        let bias = entry.wrapping_sub(self.entry);
        bias.is_multiple_of(PAGE).then_some(bias)
    }
}

/// EI_CLASS and EI_DATA say 32 bit or big endian: no executable of a supported machine.
pub(crate) fn is_foreign(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF") && matches!(head.get(4..6), Some(ident) if ident != [2, 1])
}

/// A parsed ELF file, by link-time address.
pub(crate) struct Binary<'a> {
    pub(crate) file: Windows<'a>,
    sections: Vec<Section>,
    relocations: Vec<Relocation>,
    pub(crate) facts: ElfFacts,
    /// Size and alignment of PT_TLS, bytes.
    pub(crate) tls: Option<(u64, u64)>,
}

/// No section that is read whole is larger, unpacked; what claims to be is refused before memory is allocated for it.
pub(crate) const MAX_SECTION: u64 = 32 << 20;
/// What is packed is in memory beside what it unpacks to; debug sections are packed to less than half.
const MAX_PACKED: u64 = MAX_SECTION / 2;
/// Deflate can't expand further than this.
const MAX_EXPANSION: u64 = 1100;
/// Bytes that are read at an address at once, at most: code of a function, a string.
const MAX_AT_ONCE: u64 = 1 << 20;
/// Notes are some hundred bytes.
const MAX_NOTES: u64 = 64 << 10;

impl<'a> Binary<'a> {
    pub(crate) fn parse(bytes: &'a dyn Bytes) -> Result<Self, InspectError> {
        let file = Windows::new(bytes);
        if file.copy(0, 4).as_deref() != Some(b"\x7fELF") {
            return Err(InspectError::NotElf);
        }
        let headers = headers::read(&file)?;
        let relocations = relocations::read(&file, &headers.sections)?;
        let mut binary = Self {
            file,
            sections: headers.sections,
            relocations,
            facts: ElfFacts {
                kind: headers.kind,
                entry: headers.entry,
                machine: headers.machine,
                gnu_build_id: None,
                go_build_id: None,
                segments: headers.segments,
                is_static: headers.is_static,
            },
            tls: headers.tls,
        };
        binary.facts.gnu_build_id = binary.gnu_build_id(&headers.notes);
        binary.facts.go_build_id = binary.go_build_id();
        Ok(binary)
    }

    /// The file's bytes for `len` bytes of memory at `vaddr`; None when a part isn't file-backed, or where it is more than is read at
    /// once.
    pub(crate) fn read(&self, vaddr: u64, len: u64) -> Option<Vec<u8>> {
        let available = self.read_up_to(vaddr, len)?;
        (available.len() as u64 == len).then_some(available)
    }

    /// As [`read`](Self::read), but fewer bytes where the segment ends earlier.
    pub(crate) fn read_up_to(&self, vaddr: u64, len: u64) -> Option<Vec<u8>> {
        let (segment, within) = self.locate(vaddr)?;
        let start = segment.file_offset.checked_add(within)?;
        let left = self.file.size().checked_sub(start)?;
        self.file
            .copy(start, len.min(segment.file_size - within).min(left).min(MAX_AT_ONCE))
    }

    /// The 64-bit word at `vaddr`, as it is in the file.
    pub(crate) fn word(&self, vaddr: u64) -> Option<u64> {
        let (segment, within) = self.locate(vaddr)?;
        let fits = segment.file_size - within >= 8;
        fits.then(|| self.file.long(segment.file_offset.checked_add(within)?))?
    }

    pub(crate) fn file_offset(&self, vaddr: u64) -> Option<u64> {
        let (segment, within) = self.locate(vaddr)?;
        segment.file_offset.checked_add(within)
    }

    pub(crate) fn is_code(&self, vaddr: u64) -> bool {
        self.locate(vaddr).is_some_and(|(s, _)| s.executable)
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.section(name).is_some()
    }

    /// The contents of a section that is not large, decompressed; also of one that cmd/link of old compressed (`.zdebug_info`).
    pub(crate) fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let (range, format, size) = self.packed(name)?;
        let packed = range.end - range.start;
        let most = match format {
            CompressionFormat::None => MAX_SECTION,
            _ => MAX_PACKED,
        };
        if size > MAX_SECTION || packed > most || size / MAX_EXPANSION > packed {
            return None;
        }
        let data = self.file.copy(range.start, packed)?;
        if format == CompressionFormat::None {
            return Some(data);
        }
        let packed = CompressedData {
            format,
            data: &data,
            uncompressed_size: size,
        };
        Some(packed.decompress().ok()?.into_owned())
    }

    /// How large a section is, decompressed.
    pub(crate) fn size_of(&self, name: &str) -> Option<u64> {
        self.packed(name).map(|(.., size)| size)
    }

    /// Where a section's data is in the file, how it is compressed, and how large it is when it is not.
    fn packed(&self, name: &str) -> Option<(Range<u64>, CompressionFormat, u64)> {
        let Some(section) = self.section(name) else {
            // "ZLIB" and the size, big endian.
            let old = self.section(&name.replacen(".debug_", ".zdebug_", 1))?;
            let range = old.file_range()?;
            let head = self.file.copy(range.start, 12)?;
            let size = u64::from_be_bytes(head.strip_prefix(b"ZLIB")?.try_into().ok()?);
            return Some((range.start + 12..range.end, CompressionFormat::Zlib, size))
                .filter(|(range, ..)| range.start <= range.end);
        };
        let range = section.file_range()?;
        if !section.is_compressed() {
            let size = range.end - range.start;
            return Some((range, CompressionFormat::None, size));
        }
        let head = self.file.copy(range.start, 24)?;
        let format = match elf::CompressionType(word(&head, 0)) {
            elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
            elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
            _ => return None,
        };
        let data = range.start + 24..range.end;
        (data.start <= data.end).then(|| (data, format, long(&head, 8)))
    }

    /// Shows `visit` a section in stretches, each with its address and the last `overlap` bytes of the one before, until it has an
    /// answer.
    pub(crate) fn scan<T>(
        &self,
        name: &str,
        overlap: usize,
        mut visit: impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Option<T> {
        let section = self.section(name).filter(|section| !section.is_compressed())?;
        let (range, address) = (section.file_range()?, section.address);
        self.file.scan(range.clone(), overlap, |at, bytes| {
            visit(address.checked_add(at - range.start)?, bytes)
        })
    }

    /// The addresses of a section, whether the file has its bytes or not.
    pub(crate) fn range_of(&self, name: &str) -> Option<Range<u64>> {
        let section = self.section(name)?;
        Some(section.address..section.address.checked_add(section.size)?)
    }

    fn locate(&self, vaddr: u64) -> Option<(&LoadSegment, u64)> {
        self.facts.segments.iter().find_map(|s| {
            let within = vaddr.checked_sub(s.vaddr)?;
            (within < s.file_size).then_some((s, within))
        })
    }

    /// NT_GNU_BUILD_ID of the owner GNU, in a segment or, of an object without, a section of notes.
    fn gnu_build_id(&self, segments: &[(u64, u64)]) -> Option<String> {
        let sections = self.sections.iter().filter(|s| s.kind == elf::SHT_NOTE.0);
        let places = segments.iter().copied().chain(sections.map(|s| (s.offset, s.size)));
        let ids = places.filter_map(|(offset, size)| {
            let notes = self.file.copy(offset, size.min(MAX_NOTES))?;
            note(&notes, b"GNU\0", elf::NT_GNU_BUILD_ID.0).map(hex)
        });
        ids.into_iter().next()
    }

    /// The note that cmd/link writes (go1.26, cmd/link/internal/ld/elf.go, elfwritegobuildid): name "Go", type 4.
    fn go_build_id(&self) -> Option<String> {
        let section = self.section(".note.go.buildid")?;
        let notes = self.file.copy(section.offset, section.size.min(MAX_NOTES))?;
        String::from_utf8(note(&notes, b"Go\0\0", 4)?.to_vec()).ok()
    }
}

/// What a note of this owner and kind says: sizes of name and description, the kind, and both, each padded to 4 bytes.
fn note<'n>(notes: &'n [u8], owner: &[u8], kind: u32) -> Option<&'n [u8]> {
    let mut rest = notes;
    while let Some((head, body)) = rest.split_first_chunk::<12>() {
        let padded = |size: u32| (size as usize).checked_next_multiple_of(4);
        let (name, description) = (padded(word(head, 0))?, padded(word(head, 4))?);
        let end = name.checked_add(description)?;
        if word(head, 8) == kind && body.get(..name)? == owner {
            return body.get(name..name.checked_add(word(head, 4) as usize)?);
        }
        rest = body.get(end..)?;
    }
    None
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

/// Bytes of a number; zeros where it is not there.
fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.copied().unwrap_or([0; N])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_executable() {
        let cases: [(&[u8], InspectError); 4] = [
            (b"", InspectError::NotElf),
            (b"#!/bin/sh\n", InspectError::NotElf),
            (b"\x7fELF", InspectError::Malformed { part: "ELF header" }),
            (
                b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
                InspectError::Malformed { part: "ELF header" },
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Binary::parse(&bytes).err(), Some(expected));
        }
    }
}
