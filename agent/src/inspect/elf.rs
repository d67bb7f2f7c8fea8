//! The ELF file: addresses ↔ file offsets, sections, symbols, relocations, build ids.

use std::borrow::Cow;
use std::collections::HashSet;

use object::LittleEndian;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::read::{CompressionFormat, Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, ReadRef};

use super::InspectError;
use super::arch::Arch;
use super::source::Source;

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

/// A symbol of .symtab that has an address.
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a str,
    pub(crate) vaddr: u64,
    pub(crate) size: u64,
    pub(crate) is_function: bool,
}

/// An applied relocation of the loaded image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    pub(crate) place: u64,
    pub(crate) kind: u32,
    pub(crate) symbol: u32,
    pub(crate) addend: i64,
}

/// EI_CLASS and EI_DATA say 32 bit or big endian: no executable of a supported machine.
pub(crate) fn is_foreign(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF") && matches!(head.get(4..6), Some(ident) if ident != [2, 1])
}

/// A parsed ELF file, by link-time address.
pub(crate) struct Binary<'a> {
    source: Source<'a>,
    file: ElfFile64<'a, LittleEndian, Source<'a>>,
    relocations: Vec<Relocation>,
    pub(crate) facts: ElfFacts,
    /// Size and alignment of PT_TLS, bytes.
    pub(crate) tls: Option<(u64, u64)>,
}

/// No section that is read is larger unpacked; what claims to be is refused before memory is allocated for it.
const MAX_SECTION: u64 = 256 << 20;
/// Deflate can't expand further than this.
const MAX_EXPANSION: u64 = 1100;
/// Linkers make four or five; each is looked at for every address.
const MAX_SEGMENTS: usize = 64;
/// An executable has some forty, whose names are a few hundred bytes; they are searched for each that is asked for.
const MAX_SECTIONS: usize = 1024;
const MAX_SECTION_NAMES: u64 = 256 << 10;
/// Names overlap when one is the other's end, which saves a linker little: all of them are no longer than this many tables.
const MAX_OVERLAP: usize = 4;

impl<'a> Binary<'a> {
    pub(crate) fn parse(source: Source<'a>) -> Result<Self, InspectError> {
        if source.read_bytes_at(0, 4) != Ok(b"\x7fELF") {
            return Err(InspectError::NotElf);
        }
        let file = ElfFile64::<LittleEndian, Source<'a>>::parse(source)
            .map_err(|_| InspectError::Malformed { part: "ELF header" })?;
        let header = file.elf_header();
        let endian = LittleEndian;
        let sections = file.elf_section_table();
        let names = header
            .shstrndx(endian, source)
            .ok()
            .map(|at| sections.section(object::SectionIndex(at as usize)));
        let names = names.and_then(Result::ok).map_or(0, |names| names.sh_size(endian));
        if sections.len() > MAX_SECTIONS || names > MAX_SECTION_NAMES {
            return Err(InspectError::Malformed {
                part: "section headers",
            });
        }
        let kind = match header.e_type(endian) {
            elf::ET_EXEC => ElfKind::Exec,
            elf::ET_DYN => ElfKind::Pie,
            _ => return Err(InspectError::NotElf),
        };
        let mut segments = Vec::new();
        let (mut is_static, mut tls) = (true, None);
        for ph in file.elf_program_headers() {
            match ph.p_type(endian) {
                elf::PT_LOAD => segments.push(LoadSegment {
                    vaddr: ph.p_vaddr(endian),
                    memory_size: ph.p_memsz(endian),
                    file_offset: ph.p_offset(endian),
                    file_size: ph.p_filesz(endian),
                    executable: ph.p_flags(endian).contains(elf::PF_X),
                    writable: ph.p_flags(endian).contains(elf::PF_W),
                }),
                elf::PT_INTERP => is_static = false,
                elf::PT_TLS => tls = Some((ph.p_memsz(endian), ph.p_align(endian))),
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(InspectError::Malformed { part: "no PT_LOAD" });
        }
        // No address of a program is in the kernel's half: sums of addresses and sizes do not overflow after this.
        let fits = |s: &LoadSegment| {
            let end = s.vaddr.checked_add(s.memory_size.max(s.file_size));
            end.is_some_and(|end| end <= i64::MAX as u64) && s.file_offset.checked_add(s.file_size).is_some()
        };
        if segments.len() > MAX_SEGMENTS || !segments.iter().all(fits) {
            return Err(InspectError::Malformed { part: "PT_LOAD" });
        }
        let facts = ElfFacts {
            kind,
            entry: header.e_entry(endian),
            machine: header.e_machine(endian).0,
            gnu_build_id: file.build_id().ok().flatten().map(hex),
            go_build_id: None,
            segments,
            is_static,
        };
        let relocations = read_relocations(&file, source)?;
        let mut binary = Self {
            source,
            file,
            relocations,
            facts,
            tls,
        };
        binary.facts.go_build_id = binary.go_build_id();
        Ok(binary)
    }

    /// The file's bytes for `len` bytes of memory at `vaddr`; None when a part isn't file-backed.
    pub(crate) fn read(&self, vaddr: u64, len: u64) -> Option<&'a [u8]> {
        let available = self.read_up_to(vaddr, len)?;
        (available.len() as u64 == len).then_some(available)
    }

    /// As [`read`](Self::read), but fewer bytes where the segment ends earlier.
    pub(crate) fn read_up_to(&self, vaddr: u64, len: u64) -> Option<&'a [u8]> {
        let (segment, within) = self.locate(vaddr)?;
        let start = segment.file_offset.checked_add(within)?;
        let left = self.source.len().ok()?.checked_sub(start)?;
        let len = len.min(segment.file_size - within).min(left);
        self.source.read_bytes_at(start, len).ok()
    }

    /// As [`read`](Self::read), of what is to be kept.
    pub(crate) fn read_owned(&self, vaddr: u64, len: u64) -> Option<Vec<u8>> {
        let (segment, within) = self.locate(vaddr)?;
        let fits = len <= segment.file_size - within;
        fits.then(|| self.source.read_owned(segment.file_offset.checked_add(within)?, len))?
    }

    pub(crate) fn file_offset(&self, vaddr: u64) -> Option<u64> {
        let (segment, within) = self.locate(vaddr)?;
        segment.file_offset.checked_add(within)
    }

    pub(crate) fn is_code(&self, vaddr: u64) -> bool {
        self.locate(vaddr).is_some_and(|(s, _)| s.executable)
    }

    /// The pointer stored at `vaddr` as the loader leaves it (before the bias is added).
    pub(crate) fn pointer(&self, vaddr: u64) -> Option<u64> {
        match self.relocation(vaddr) {
            Some(r) if self.is_relative(r) => Some(r.addend as u64),
            Some(r) if self.is_absolute(r) => {
                let symbol = self.dynamic_symbol(r.symbol)?;
                (symbol != 0).then(|| symbol.wrapping_add(r.addend as u64))
            }
            Some(_) => None,
            None => Some(u64::from_le_bytes(self.read(vaddr, 8)?.try_into().ok()?)),
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

    /// st_value of a dynamic symbol (0 when undefined).
    pub(crate) fn dynamic_symbol(&self, index: u32) -> Option<u64> {
        let index = object::SymbolIndex(index as usize);
        Some(self.file.dynamic_symbol_table()?.symbol_by_index(index).ok()?.address())
    }

    /// Address and contents of a section, decompressed.
    pub(crate) fn section(&self, name: &str) -> Option<(u64, Cow<'a, [u8]>)> {
        let section = self.file.section_by_name(name)?;
        let range = section.compressed_file_range().ok()?;
        if range.format != CompressionFormat::None
            && (range.uncompressed_size > MAX_SECTION
                || range.uncompressed_size / MAX_EXPANSION > range.compressed_size)
        {
            return None;
        }
        let data = section.compressed_data().ok()?;
        Some((section.address(), data.decompress().ok()?))
    }

    /// Address and contents of a section that is to be kept.
    pub(crate) fn section_owned(&self, name: &str) -> Option<(u64, Vec<u8>)> {
        let section = self.file.section_by_name(name)?;
        let (offset, size) = section.file_range()?;
        match section.compressed_file_range().ok()?.format {
            CompressionFormat::None => Some((section.address(), self.source.read_owned(offset, size)?)),
            _ => self.section(name).map(|(vaddr, data)| (vaddr, data.into_owned())),
        }
    }

    /// The addresses of a section, whether the file has its bytes or not.
    pub(crate) fn range_of(&self, name: &str) -> Option<std::ops::Range<u64>> {
        let section = self.file.section_by_name(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    }

    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.file.section_by_name(name).is_some()
    }

    /// The symbols of .symtab that have a name and an address. It ends where names are longer, all in all, than a linker makes
    /// them: each is searched for its end.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = Symbol<'a>> + use<'a, '_> {
        let endian = LittleEndian;
        let table = self.file.elf_symbol_table();
        let strings = self.file.elf_section_table().section(table.string_section());
        let strings = strings.and_then(|section| section.data(endian, self.source));
        let strings = strings.unwrap_or_default();
        let mut left = strings.len().saturating_mul(MAX_OVERLAP);
        let defined = table.iter().filter(move |symbol| {
            let section = symbol.st_shndx(endian);
            let defined = !section.is_special() || section == elf::SHN_XINDEX;
            defined && matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_OBJECT | elf::STT_NOTYPE)
        });
        let named = defined.map_while(move |symbol| {
            let rest = strings.get(symbol.st_name(endian) as usize..).unwrap_or_default();
            let end = rest.iter().take(left + 1).position(|byte| *byte == 0);
            left = left.checked_sub(end.unwrap_or(0))?;
            Some((symbol, end.map(|end| &rest[..end])))
        });
        named.filter_map(move |(symbol, name)| {
            Some(Symbol {
                name: std::str::from_utf8(name?).ok()?,
                vaddr: symbol.st_value(endian),
                size: symbol.st_size(endian),
                is_function: symbol.st_type() == elf::STT_FUNC,
            })
        })
    }

    fn locate(&self, vaddr: u64) -> Option<(&LoadSegment, u64)> {
        self.facts.segments.iter().find_map(|s| {
            let within = vaddr.checked_sub(s.vaddr)?;
            (within < s.file_size).then_some((s, within))
        })
    }

    /// The note that cmd/link writes (go1.26, cmd/link/internal/ld/elf.go, elfwritegobuildid): name "Go", type 4.
    fn go_build_id(&self) -> Option<String> {
        let (_, note) = self.section(".note.go.buildid")?;
        let size = u32::from_le_bytes(note.get(4..8)?.try_into().ok()?) as usize;
        let id = note.get(16..16usize.checked_add(size)?)?;
        String::from_utf8(id.to_vec()).ok()
    }
}

/// Relocations of the loaded image, by place. Sections that overlap are refused: each entry is kept.
fn read_relocations<'a>(
    file: &ElfFile64<'a, LittleEndian, Source<'a>>,
    source: Source<'a>,
) -> Result<Vec<Relocation>, InspectError> {
    let endian = LittleEndian;
    let malformed = InspectError::Malformed { part: "relocations" };
    let mut left = source.len().map_err(|()| malformed.clone())?;
    let mut all = Vec::new();
    for section in file.elf_section_table().iter() {
        let allocated = section.sh_flags(endian).contains(elf::SHF_ALLOC);
        if section.sh_type(endian) != elf::SHT_RELA || !allocated {
            continue;
        }
        left = left.checked_sub(section.sh_size(endian)).ok_or(malformed.clone())?;
        let Ok(data) = section.data(endian, source) else {
            continue;
        };
        for entry in data.chunks_exact(24) {
            let word = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
            let info = word(8);
            all.push(Relocation {
                place: word(0),
                kind: info as u32,
                symbol: (info >> 32) as u32,
                addend: word(16) as i64,
            });
        }
    }
    all.sort_by_key(|r| r.place);
    Ok(all)
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
            assert_eq!(Binary::parse(Source::Bytes(bytes)).err(), Some(expected));
        }
    }
}
