//! The headers of an ELF file: segments and sections.

use object::elf;

use super::super::InspectError;
use super::super::source::Windows;
use super::{ElfKind, LoadSegment, long, short, word};

/// Linkers make four or five; each is looked at for every address.
const MAX_SEGMENTS: usize = 64;
/// Program headers of all kinds: some fifteen.
const MAX_PROGRAM_HEADERS: usize = 1024;
/// An executable has some forty, whose names are a few hundred bytes; they are searched for each that is asked for.
const MAX_SECTIONS: usize = 1024;
const MAX_SECTION_NAMES: u64 = 256 << 10;
const MAX_SECTION_NAME: usize = 256;

/// A section's header.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(super) kind: u32,
    pub(super) flags: u64,
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(super) link: u32,
}

impl Section {
    /// Where its bytes are in the file; none of a section without any (.bss).
    pub(crate) fn file_range(&self) -> Option<std::ops::Range<u64>> {
        let end = self.offset.checked_add(self.size)?;
        (self.kind != elf::SHT_NOBITS.0).then_some(self.offset..end)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.flags & elf::SHF_COMPRESSED.0 != 0
    }
}

/// What the headers say.
pub(super) struct Headers {
    pub(super) kind: ElfKind,
    pub(super) entry: u64,
    pub(super) machine: u16,
    pub(super) segments: Vec<LoadSegment>,
    pub(super) sections: Vec<Section>,
    pub(super) is_static: bool,
    pub(super) tls: Option<(u64, u64)>,
    /// Offset and size of each PT_NOTE.
    pub(super) notes: Vec<(u64, u64)>,
}

pub(super) fn read(file: &Windows<'_>) -> Result<Headers, InspectError> {
    let malformed = || InspectError::Malformed { part: "ELF header" };
    let head = file.copy(0, 64).ok_or_else(malformed)?;
    // ELFCLASS64, little endian, version 1.
    if head.get(4..7) != Some(&[2, 1, 1]) {
        return Err(malformed());
    }
    let kind = match elf::FileType(short(&head, 16)) {
        elf::ET_EXEC => ElfKind::Exec,
        elf::ET_DYN => ElfKind::Pie,
        _ => return Err(InspectError::NotElf),
    };
    let sections = sections(file, &head)?;
    let mut headers = Headers {
        kind,
        entry: long(&head, 24),
        machine: short(&head, 18),
        segments: Vec::new(),
        sections,
        is_static: true,
        tls: None,
        notes: Vec::new(),
    };
    let count = usize::from(short(&head, 56));
    if count > MAX_PROGRAM_HEADERS || (count > 0 && short(&head, 54) != 56) {
        return Err(malformed());
    }
    let table = file.copy(long(&head, 32), count as u64 * 56).ok_or_else(malformed)?;
    for header in table.as_chunks::<56>().0 {
        let (flags, offset) = (word(header, 4), long(header, 8));
        let (vaddr, file_size, memory_size) = (long(header, 16), long(header, 32), long(header, 40));
        match elf::ProgramType(word(header, 0)) {
            elf::PT_LOAD => headers.segments.push(LoadSegment {
                vaddr,
                memory_size,
                file_offset: offset,
                file_size,
                executable: flags & elf::PF_X.0 != 0,
                writable: flags & elf::PF_W.0 != 0,
            }),
            elf::PT_INTERP => headers.is_static = false,
            elf::PT_TLS => headers.tls = Some((memory_size, long(header, 48))),
            elf::PT_NOTE => headers.notes.push((offset, file_size)),
            _ => {}
        }
    }
    if headers.segments.is_empty() {
        return Err(InspectError::Malformed { part: "no PT_LOAD" });
    }
    // No address of a program is in the kernel's half: sums of addresses and sizes do not overflow after this.
    let fits = |s: &LoadSegment| {
        let end = s.vaddr.checked_add(s.memory_size.max(s.file_size));
        end.is_some_and(|end| end <= i64::MAX as u64) && s.file_offset.checked_add(s.file_size).is_some()
    };
    if headers.segments.len() > MAX_SEGMENTS || !headers.segments.iter().all(fits) {
        return Err(InspectError::Malformed { part: "PT_LOAD" });
    }
    Ok(headers)
}

fn sections(file: &Windows<'_>, head: &[u8]) -> Result<Vec<Section>, InspectError> {
    let malformed = || InspectError::Malformed {
        part: "section headers",
    };
    let at = long(head, 40);
    if at == 0 {
        return Ok(Vec::new());
    }
    // What does not fit into the header stands in the first section's (ELF specification, e_shnum and e_shstrndx).
    let first = file
        .copy(at, 64)
        .ok_or(InspectError::Malformed { part: "ELF header" })?;
    let count = match short(head, 60) {
        0 => long(&first, 32),
        count => count.into(),
    };
    let names = match short(head, 62) {
        0xffff => word(&first, 40),
        names => names.into(),
    };
    if count > MAX_SECTIONS as u64 || short(head, 58) != 64 {
        return Err(malformed());
    }
    let table = file
        .copy(at, count * 64)
        .ok_or(InspectError::Malformed { part: "ELF header" })?;
    let entry = |header: &[u8; 64], name: String| Section {
        name,
        kind: word(header, 4),
        flags: long(header, 8),
        address: long(header, 16),
        offset: long(header, 24),
        size: long(header, 32),
        link: word(header, 40),
    };
    let table = table.as_chunks::<64>().0;
    let strings = table.get(names as usize).map(|header| entry(header, String::new()));
    let strings = strings.and_then(|strings| strings.file_range()).unwrap_or(0..0);
    if strings.end - strings.start > MAX_SECTION_NAMES {
        return Err(malformed());
    }
    let mut bytes = Vec::new();
    let name = |header: &[u8; 64]| {
        let from = strings.start.checked_add(word(header, 0).into())?;
        file.name(from, strings.end, MAX_SECTION_NAME, &mut bytes)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let names: Vec<String> = table.iter().map(name).map(Option::unwrap_or_default).collect();
    let sections: Vec<Section> = table
        .iter()
        .zip(names)
        .map(|(header, name)| entry(header, name))
        .collect();
    // As of segments: sums of addresses and sizes do not overflow after this.
    let fits = |section: &Section| {
        let end = section.address.checked_add(section.size);
        end.is_some_and(|end| end <= i64::MAX as u64)
    };
    if !sections.iter().all(fits) {
        return Err(malformed());
    }
    Ok(sections)
}
