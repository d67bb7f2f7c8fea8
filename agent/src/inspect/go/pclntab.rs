//! pclntab: functions, files and lines of a Go binary, stripped or not.
//!
//! Format: go1.26, src/runtime/symtab.go (`pcHeader`, `_func`, `funcline1`, `pcvalue`) and src/debug/gosym/pclntab.go. The
//! two magics in range differ in nothing read here: 0xfffffff0 (go1.18, 1.19) and 0xfffffff1 (go1.20 on).

mod place;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

pub(super) use place::read;

/// A place in the source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Package path and name, such as `main.(*Cache).Get`.
    pub function: String,
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
}

/// Link-time addresses → functions, files and lines. Holds its own copy of the table.
#[derive(Clone)]
pub struct GoSymbolizer {
    table: Vec<u8>,
    /// runtime.text, which all addresses in the table are relative to.
    text: u64,
    header: Header,
}

#[cfg(test)]
impl GoSymbolizer {
    /// One that knows no function.
    pub fn empty() -> Self {
        let header = Header {
            quantum: 1,
            functions: 0,
            names: 0,
            units: 0,
            files: 0,
            pc_values: 0,
            funcs: 0,
        };
        let (table, text) = (Vec::new(), 0);
        Self { table, text, header }
    }
}

/// What the table's header says; places are bytes from the table's begin.
#[derive(Clone)]
struct Header {
    /// What pc deltas are multiplied by.
    quantum: u64,
    functions: usize,
    names: usize,
    units: usize,
    files: usize,
    pc_values: usize,
    /// The functab, and the base of the offsets in it.
    funcs: usize,
}

/// Steps of a pc-value table: the longest function of a large program has some ten thousand.
const MAX_STEPS: usize = 1 << 18;
const MAX_NAME: usize = 1 << 16;
/// A function of a name that is looked for, and the wrapper for the other ABI; of more nothing could be told.
const MAX_NAMESAKES: usize = 4;

impl GoSymbolizer {
    /// The name, file and line of the instruction at `vaddr` (link-time). For a return address, ask for the byte before it.
    pub fn lookup(&self, vaddr: u64) -> Option<Frame> {
        let offset = u32::try_from(vaddr.checked_sub(self.text)?).ok()?;
        let index = self.find(offset)?;
        let func = self.func(index)?;
        let (name, pcfile, pcln, unit) = (func.field(1)?, func.field(5)?, func.field(6)?, func.field(8)?);
        let entry = u64::from(func.field(0)?);
        let file = self
            .pc_value(pcfile, entry, u64::from(offset))
            .and_then(|n| self.file(unit, n));
        let line = self
            .pc_value(pcln, entry, u64::from(offset))
            .and_then(|n| u32::try_from(n).ok());
        Some(Frame {
            function: self.string(self.header.names, name)?,
            file: file.unwrap_or_default(),
            line: line.unwrap_or(0),
        })
    }

    /// The address range of the function at `vaddr`.
    pub fn function_range(&self, vaddr: u64) -> Option<Range<u64>> {
        let index = self.find(u32::try_from(vaddr.checked_sub(self.text)?).ok()?)?;
        self.range(index)
    }

    /// How many functions the table has.
    pub fn len(&self) -> usize {
        self.header.functions
    }

    pub fn is_empty(&self) -> bool {
        self.header.functions == 0
    }

    /// All functions of these names: usually one each, two where an ABI wrapper has the same name.
    pub(super) fn functions_named<'n>(&self, names: &[&'n str]) -> HashMap<&'n str, Vec<Range<u64>>> {
        let wanted: HashMap<&[u8], &'n str> = names.iter().map(|name| (name.as_bytes(), *name)).collect();
        // A name is searched for its end no further than it could be one of these: all of them may end at the same place.
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut found: HashMap<&str, Vec<Range<u64>>> = HashMap::new();
        for index in 0..self.header.functions {
            let bytes = self
                .func(index)
                .and_then(|f| self.text_at(self.header.names, f.field(1)?, longest + 1));
            if let Some(name) = bytes.and_then(|bytes| wanted.get(bytes))
                && let Some(range) = self.range(index)
            {
                let ranges = found.entry(name).or_default();
                if ranges.len() < MAX_NAMESAKES {
                    ranges.push(range);
                }
            }
        }
        found
    }

    fn range(&self, index: usize) -> Option<Range<u64>> {
        let start = self.text.checked_add(u64::from(self.entry(index)?))?;
        let end = self.text.checked_add(u64::from(self.entry(index + 1)?))?;
        (start < end).then_some(start..end)
    }

    /// Index of the last function that starts at or before `offset`.
    fn find(&self, offset: u32) -> Option<usize> {
        let (mut low, mut high) = (0, self.header.functions);
        if offset < self.entry(0)? || offset >= self.entry(self.header.functions)? {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.entry(middle)? <= offset {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    /// Entry of function `index`, relative to text; of `functions` itself, the end of the last.
    fn entry(&self, index: usize) -> Option<u32> {
        self.word(self.header.funcs.checked_add(index.checked_mul(8)?)?)
    }

    fn func(&self, index: usize) -> Option<Func<'_>> {
        let at = self.word(self.header.funcs.checked_add(index.checked_mul(8)?)?.checked_add(4)?)?;
        Some(Func {
            table: self,
            at: self.header.funcs.checked_add(at as usize)?,
        })
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.table.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    }

    fn text_at(&self, base: usize, offset: u32, longest: usize) -> Option<&[u8]> {
        let rest = self.table.get(base.checked_add(offset as usize)?..)?;
        let end = rest.iter().take(longest).position(|b| *b == 0)?;
        Some(&rest[..end])
    }

    fn string(&self, base: usize, offset: u32) -> Option<String> {
        Some(String::from_utf8_lossy(self.text_at(base, offset, MAX_NAME)?).into_owned())
    }

    /// File number `n` of a compile unit: cutab maps it to an offset in the file table (symtab.go, funcfile).
    fn file(&self, unit: u32, n: i32) -> Option<String> {
        let slot = (unit as usize).checked_add(usize::try_from(n).ok()?)?;
        let offset = self.word(self.header.units.checked_add(slot.checked_mul(4)?)?)?;
        (offset != u32::MAX).then(|| self.string(self.header.files, offset))?
    }

    /// Runs a pc-value table up to `target` (symtab.go, pcvalue): pairs of zig-zag value delta and pc delta.
    fn pc_value(&self, table: u32, entry: u64, target: u64) -> Option<i32> {
        if table == 0 {
            return None;
        }
        let mut at = self.header.pc_values.checked_add(table as usize)?;
        let (mut pc, mut value) = (entry, -1i32);
        for step in 0..MAX_STEPS {
            let delta = self.varint(&mut at)?;
            if delta == 0 && step > 0 {
                return None;
            }
            let delta = if delta & 1 != 0 { !(delta >> 1) } else { delta >> 1 };
            value = value.wrapping_add(delta as i32);
            pc = pc.checked_add(u64::from(self.varint(&mut at)?).checked_mul(self.header.quantum)?)?;
            if target < pc {
                return Some(value);
            }
        }
        None
    }

    fn varint(&self, at: &mut usize) -> Option<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = *self.table.get(*at)?;
            *at += 1;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl fmt::Debug for GoSymbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "GoSymbolizer({} functions from {:#x}, {} bytes)",
            self.header.functions,
            self.text,
            self.table.len()
        )
    }
}

/// A `_func`: 32-bit words entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, …
struct Func<'t> {
    table: &'t GoSymbolizer,
    at: usize,
}

impl Func<'_> {
    fn field(&self, n: usize) -> Option<u32> {
        self.table.word(self.at.checked_add(n * 4)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_tables_end() {
        let mut table = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        for word in [1u64, 0, 0, 0, 0, 0, 0, 72] {
            table.extend(word.to_le_bytes());
        }
        // One function 0..16 whose _func is in the table itself, then steps that never reach the target.
        table.extend([0, 0, 0, 0, 12, 0, 0, 0, 16, 0, 0, 0]);
        table.extend([1; 4096]);
        let mut symbolizer = place::parse(table).expect("a table");
        symbolizer.text = 0x1000;
        for vaddr in [0, 0xfff, 0x1000, 0x100f, 0x1010, u64::MAX] {
            let _ = symbolizer.lookup(vaddr);
        }
    }
}
