//! Types and variables of the Go runtime, from DWARF 4 (go1.18–1.24) and 5 (go1.25 on).
//!
//! Only the compile units named `runtime` are walked, and of them only the names; a type's members are read when asked for.

mod tables;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use gimli::{
    Abbreviations, AttributeValue, DebugInfoOffset, DebuggingInformationEntry, DwTag, Dwarf, EndianSlice, LittleEndian,
    Operation, Section as _, UnitHeader, constants as dw,
};

use super::super::elf::Binary;
use tables::Tables;

/// Where a field is within its outermost struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldLoc {
    /// Bytes from the start of the struct.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

type Slice<'d> = EndianSlice<'d, LittleEndian>;
/// A unit's header and abbreviations: its line program and ranges, which gimli's own Unit would want, aren't needed.
struct Unit<'d> {
    header: UnitHeader<Slice<'d>>,
    abbreviations: Arc<Abbreviations>,
}

type Entry<'d> = DebuggingInformationEntry<Slice<'d>>;

/// The DWARF sections, decompressed, which [`Types`] borrows.
pub(crate) struct Sections(HashMap<&'static str, Vec<u8>>);

const SECTIONS: [&str; 4] = [".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str"];

impl Sections {
    /// None when the binary has no DWARF.
    pub(crate) fn of(binary: &Binary<'_>) -> Option<Self> {
        let read = |name: &'static str| binary.contents(name).map(|data| (name, data));
        let found: HashMap<_, _> = SECTIONS.into_iter().filter_map(read).collect();
        found.contains_key(".debug_info").then_some(Self(found))
    }

    /// Bytes that they take, decompressed; None without DWARF.
    pub(crate) fn size(binary: &Binary<'_>) -> Option<u64> {
        let info = binary.size_of(".debug_info")?;
        let others = SECTIONS[1..].iter().filter_map(|name| binary.size_of(name));
        Some(others.fold(info, u64::saturating_add))
    }
}

/// An index of the runtime's named types and variables.
pub(crate) struct Types<'d> {
    dwarf: Dwarf<Slice<'d>>,
    /// All units, by their offset in .debug_info.
    headers: Vec<UnitHeader<Slice<'d>>>,
    /// The units that were walked; types may refer to any.
    types: HashMap<String, DebugInfoOffset>,
    variables: HashMap<String, Variable>,
    tables: RefCell<Tables>,
    /// Attributes that may still be read.
    left: Cell<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Variable {
    address: Option<u64>,
    type_at: Option<DebugInfoOffset>,
}

/// A type's place and what it is.
struct Shape {
    tag: DwTag,
    size: Option<u64>,
    inner: Option<DebugInfoOffset>,
}

/// Why DWARF can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Format(#[from] gimli::Error),
    #[error("more entries, attributes or names than its size allows for")]
    TooMuch,
}

/// Typedef chains and nested embedded fields end long before.
const MAX_DEPTH: usize = 16;
/// Bytes of a struct up to the end of a field that is read: runtime.mheap, the largest, has some 200 KB.
const MAX_STRUCT: u64 = 4 << 20;
/// Names that are looked for are shorter; longer ones may be the same bytes for every entry.
const MAX_NAME: usize = 128;
/// Names of the runtime's types and variables that are kept: it has some 1500.
const MAX_NAMES: usize = 1 << 16;
/// Units: one a package, and one a file of C.
const MAX_UNITS: usize = 1 << 15;
/// Attributes read, a byte of .debug_info, and beside: all entries are read once at most, and some thousand again.
const MAX_PER_BYTE: usize = 2;
const MAX_BESIDE: usize = 4 << 20;
/// Bytes of a table of abbreviations that are as much work as an attribute.
const TABLE_BYTES: usize = 16;

impl<'d> Types<'d> {
    pub(crate) fn index(sections: &'d Sections) -> Result<Self, Unreadable> {
        let dwarf = Dwarf::load(|id| -> gimli::Result<_> {
            let data = sections.0.get(id.name()).map_or(&[][..], Vec::as_slice);
            Ok(EndianSlice::new(data, LittleEndian))
        })?;
        let size = sections.0.get(".debug_info").map_or(0, |data| data.len());
        let mut index = Self {
            dwarf,
            headers: Vec::new(),
            types: HashMap::new(),
            variables: HashMap::new(),
            tables: RefCell::default(),
            left: Cell::new(size.saturating_mul(MAX_PER_BYTE).saturating_add(MAX_BESIDE)),
        };
        let mut units = index.dwarf.units();
        while let Some(header) = units.next()? {
            if index.headers.len() >= MAX_UNITS {
                return Err(Unreadable::TooMuch);
            }
            index.tables.get_mut().begins(header.debug_abbrev_offset());
            index.headers.push(header);
        }
        let mut rest = Vec::new();
        for header in index.headers.clone() {
            let unit = index.unit(header)?;
            let root = unit.header.entry(&unit.abbreviations, unit.header.root_offset())?;
            index.spend(&root)?;
            if index.name(&root).as_deref() == Some("runtime") {
                index.walk(&unit)?;
            } else {
                rest.push(header);
            }
        }
        // Should a linker put the runtime's types elsewhere.
        for header in rest {
            if index.types.contains_key("runtime.g") && index.types.contains_key("runtime.timeHistogram") {
                break;
            }
            let unit = index.unit(header)?;
            index.walk(&unit)?;
        }
        Ok(index)
    }

    /// The field at `path` (names joined by dots, embedded structs by their type's name or left out) of a named type, or of a
    /// variable's type.
    pub(crate) fn field(&self, root: &str, path: &str) -> Option<FieldLoc> {
        let mut at = self.root(root)?;
        let (mut offset, mut size) = (0u64, 0);
        for name in path.split('.') {
            let (member, type_at) = self.member(at, name, 0)?;
            offset = offset.checked_add(member)?;
            size = self.size(type_at, 0)?;
            at = type_at;
        }
        let end = offset.checked_add(size)?;
        (end <= MAX_STRUCT).then_some(FieldLoc { offset, size })
    }

    /// Size of a named type in bytes.
    pub(crate) fn size_of(&self, root: &str) -> Option<u64> {
        self.size(self.root(root)?, 0)
    }

    /// Size in bytes of one element of the array field at `path`.
    pub(crate) fn element_size(&self, root: &str, path: &str) -> Option<u64> {
        let mut at = self.root(root)?;
        for name in path.split('.') {
            at = self.member(at, name, 0)?.1;
        }
        let array = self.resolve(at)?;
        (array.1.tag == dw::DW_TAG_array_type).then(|| self.size(array.1.inner?, 0))?
    }

    /// Link-time address of a global variable.
    pub(crate) fn address(&self, variable: &str) -> Option<u64> {
        self.variables.get(variable)?.address
    }

    fn root(&self, name: &str) -> Option<DebugInfoOffset> {
        let of_variable = || self.variables.get(name)?.type_at;
        self.types.get(name).copied().or_else(of_variable)
    }

    fn walk(&mut self, unit: &Unit<'d>) -> Result<(), Unreadable> {
        let mut entries = unit.header.entries_raw(&unit.abbreviations, None)?;
        let mut entry = DebuggingInformationEntry::null();
        while !entries.is_empty() {
            let there = entries.read_entry(&mut entry)?;
            self.spend(&entry)?;
            if !there || entry.depth() != 1 {
                continue;
            }
            let tag = entry.tag();
            if tag != dw::DW_TAG_structure_type && tag != dw::DW_TAG_variable {
                continue;
            }
            let Some(name) = self.name(&entry).filter(|name| is_runtimes(name)) else {
                continue;
            };
            if self.types.len() + self.variables.len() >= MAX_NAMES {
                return Err(Unreadable::TooMuch);
            }
            let at = DebugInfoOffset(entry.offset().to_unit_section_offset(&unit.header).0);
            if tag == dw::DW_TAG_structure_type {
                self.types.entry(name).or_insert(at);
            } else {
                let variable = Variable {
                    address: address(unit, &entry),
                    type_at: reference(unit, &entry),
                };
                self.variables.entry(name).or_insert(variable);
            }
        }
        Ok(())
    }

    fn name(&self, entry: &Entry<'d>) -> Option<String> {
        let bytes = match entry.attr_value(dw::DW_AT_name)? {
            AttributeValue::String(text) => text.slice(),
            AttributeValue::DebugStrRef(at) => self.dwarf.debug_str.reader().slice().get(at.0..)?,
            AttributeValue::DebugLineStrRef(at) => self.dwarf.debug_line_str.reader().slice().get(at.0..)?,
            _ => return None,
        };
        let bytes = &bytes[..bytes.len().min(MAX_NAME)];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        (end < MAX_NAME).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// Accounts for an entry that was read: one abbreviation may give thousands of attributes to every byte of the section,
    /// and embedded structs refer to one another without end.
    fn spend(&self, entry: &Entry<'d>) -> Result<(), Unreadable> {
        self.charge(1 + entry.attrs().len())
    }

    fn charge(&self, attributes: usize) -> Result<(), Unreadable> {
        let left = self.left.get().checked_sub(attributes);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or(Unreadable::TooMuch)
    }

    fn unit(&self, header: UnitHeader<Slice<'d>>) -> Result<Unit<'d>, Unreadable> {
        let section = self.dwarf.debug_abbrev.reader().slice();
        let (abbreviations, read) = self.tables.borrow_mut().get(section, header.debug_abbrev_offset())?;
        // Those that had to make room may be read again and again.
        self.charge(read / TABLE_BYTES)?;
        Ok(Unit { header, abbreviations })
    }

    fn unit_of(&self, at: DebugInfoOffset) -> Option<Unit<'d>> {
        let next = self
            .headers
            .partition_point(|h| h.debug_info_offset().is_some_and(|o| o.0 <= at.0));
        self.unit(*self.headers.get(next.checked_sub(1)?)?).ok()
    }

    /// Follows typedefs and qualifiers to the type proper.
    fn resolve(&self, mut at: DebugInfoOffset) -> Option<(DebugInfoOffset, Shape)> {
        for _ in 0..MAX_DEPTH {
            let shape = self.shape(at)?;
            match shape.tag {
                dw::DW_TAG_typedef | dw::DW_TAG_const_type | dw::DW_TAG_volatile_type => at = shape.inner?,
                _ => return Some((at, shape)),
            }
        }
        None
    }

    fn shape(&self, at: DebugInfoOffset) -> Option<Shape> {
        let unit = self.unit_of(at)?;
        let entry = unit
            .header
            .entry(&unit.abbreviations, at.to_unit_offset(&unit.header)?)
            .ok()?;
        self.spend(&entry).ok()?;
        Some(Shape {
            tag: entry.tag(),
            size: entry.attr_value(dw::DW_AT_byte_size).and_then(|v| v.udata_value()),
            inner: reference(&unit, &entry),
        })
    }

    fn size(&self, at: DebugInfoOffset, depth: usize) -> Option<u64> {
        let (at, shape) = self.resolve(at)?;
        match shape.tag {
            dw::DW_TAG_pointer_type | dw::DW_TAG_subroutine_type => Some(8),
            _ if shape.size.is_some() => shape.size,
            dw::DW_TAG_array_type if depth < MAX_DEPTH => {
                let count = self.children(at, |_, child| child.attr_value(dw::DW_AT_count)?.udata_value())?;
                count.checked_mul(self.size(shape.inner?, depth + 1)?)
            }
            _ => None,
        }
    }

    /// Offset and type of a member, also of one that is promoted from an embedded struct.
    fn member(&self, at: DebugInfoOffset, wanted: &str, depth: usize) -> Option<(u64, DebugInfoOffset)> {
        let (at, shape) = self.resolve(at)?;
        if shape.tag != dw::DW_TAG_structure_type || depth > MAX_DEPTH {
            return None;
        }
        let mut embedded = Vec::new();
        let found = self.children(at, |unit, child| {
            if child.tag() != dw::DW_TAG_member {
                return None;
            }
            let offset = child
                .attr_value(dw::DW_AT_data_member_location)
                .and_then(|v| v.udata_value())
                .unwrap_or(0);
            let type_at = reference(unit, child)?;
            let name = self.name(child)?;
            if name == wanted || name.rsplit('.').next() == Some(wanted) {
                return Some((offset, type_at));
            }
            // DW_AT_go_embedded_field (go1.26, cmd/internal/dwarf/dwarf.go).
            let flag = child.attr_value(gimli::DwAt(0x2903));
            if flag.is_some_and(|f| !matches!(f, AttributeValue::Flag(false)) && f.udata_value() != Some(0)) {
                embedded.push((offset, type_at));
            }
            None
        });
        found.or_else(|| {
            embedded.into_iter().find_map(|(offset, type_at)| {
                let (inner, type_at) = self.member(type_at, wanted, depth + 1)?;
                Some((offset.checked_add(inner)?, type_at))
            })
        })
    }

    /// The first answer of `visit` over the direct children of the entry at `at`.
    fn children<T>(&self, at: DebugInfoOffset, mut visit: impl FnMut(&Unit<'d>, &Entry<'d>) -> Option<T>) -> Option<T> {
        let unit = self.unit_of(at)?;
        let mut cursor = unit
            .header
            .entries_raw(&unit.abbreviations, Some(at.to_unit_offset(&unit.header)?))
            .ok()?;
        let mut entry = DebuggingInformationEntry::null();
        cursor.read_entry(&mut entry).ok()?;
        if !entry.has_children() {
            return None;
        }
        let parent = entry.depth();
        while !cursor.is_empty() {
            let there = cursor.read_entry(&mut entry).ok()?;
            self.spend(&entry).ok()?;
            if cursor.next_depth() <= parent {
                return None;
            }
            if !there || entry.depth() != parent + 1 {
                continue;
            }
            if let Some(answer) = visit(&unit, &entry) {
                return Some(answer);
            }
        }
        None
    }
}

/// What stands in [`GoOffsets`](super::offsets::GoOffsets) and [`GoGlobals`](super::globals::GoGlobals) is of these packages.
fn is_runtimes(name: &str) -> bool {
    name.starts_with("runtime.") || name.starts_with("internal/runtime/")
}

fn reference(unit: &Unit<'_>, entry: &Entry<'_>) -> Option<DebugInfoOffset> {
    match entry.attr_value(dw::DW_AT_type)? {
        AttributeValue::UnitRef(offset) => Some(DebugInfoOffset(offset.to_unit_section_offset(&unit.header).0)),
        AttributeValue::DebugInfoRef(offset) => Some(offset),
        _ => None,
    }
}

/// A location that is nothing but DW_OP_addr.
fn address(unit: &Unit<'_>, entry: &Entry<'_>) -> Option<u64> {
    let AttributeValue::Exprloc(expression) = entry.attr_value(dw::DW_AT_location)? else {
        return None;
    };
    match expression.operations(unit.header.encoding()).next().ok()?? {
        Operation::Address { address } => Some(address),
        _ => None,
    }
}
