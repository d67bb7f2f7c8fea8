//! pclntab: functions, files and lines of a Go binary, stripped or not.
//!
//! Format: go1.26, src/runtime/symtab.go (`pcHeader`, `_func`, `funcline1`, `pcvalue`) and src/debug/gosym/pclntab.go. The
//! two magics in range differ in nothing read here: 0xfffffff0 (go1.18, 1.19) and 0xfffffff1 (go1.20 on).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use super::super::InspectError;
use super::super::elf::Binary;

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
    quantum: u64,
    functions: usize,
    names: usize,
    units: usize,
    files: usize,
    pc_values: usize,
    /// The functab, and the base of the offsets in it.
    funcs: usize,
}

/// abi.Go118PCLnTabMagic, abi.Go120PCLnTabMagic (go1.26, internal/abi/symtab.go).
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
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
            function: self.string(self.names, name)?,
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
        self.functions
    }

    pub fn is_empty(&self) -> bool {
        self.functions == 0
    }

    /// All functions of these names: usually one each, two where an ABI wrapper has the same name.
    pub(super) fn functions_named<'n>(&self, names: &[&'n str]) -> HashMap<&'n str, Vec<Range<u64>>> {
        let wanted: HashMap<&[u8], &'n str> = names.iter().map(|name| (name.as_bytes(), *name)).collect();
        // A name is searched for its end no further than it could be one of these: all of them may end at the same place.
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut found: HashMap<&str, Vec<Range<u64>>> = HashMap::new();
        for index in 0..self.functions {
            let bytes = self
                .func(index)
                .and_then(|f| self.text_at(self.names, f.field(1)?, longest + 1));
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
        let (mut low, mut high) = (0, self.functions);
        if offset < self.entry(0)? || offset >= self.entry(self.functions)? {
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
        self.word(self.funcs.checked_add(index.checked_mul(8)?)?)
    }

    fn func(&self, index: usize) -> Option<Func<'_>> {
        let at = self.word(self.funcs.checked_add(index.checked_mul(8)?)?.checked_add(4)?)?;
        Some(Func {
            table: self,
            at: self.funcs.checked_add(at as usize)?,
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
        let offset = self.word(self.units.checked_add(slot.checked_mul(4)?)?)?;
        (offset != u32::MAX).then(|| self.string(self.files, offset))?
    }

    /// Runs a pc-value table up to `target` (symtab.go, pcvalue): pairs of zig-zag value delta and pc delta.
    fn pc_value(&self, table: u32, entry: u64, target: u64) -> Option<i32> {
        if table == 0 {
            return None;
        }
        let mut at = self.pc_values.checked_add(table as usize)?;
        let (mut pc, mut value) = (entry, -1i32);
        for step in 0..MAX_STEPS {
            let delta = self.varint(&mut at)?;
            if delta == 0 && step > 0 {
                return None;
            }
            let delta = if delta & 1 != 0 { !(delta >> 1) } else { delta >> 1 };
            value = value.wrapping_add(delta as i32);
            pc = pc.checked_add(u64::from(self.varint(&mut at)?).checked_mul(self.quantum)?)?;
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
            self.functions,
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

pub(super) fn read(binary: &Binary<'_>) -> Result<GoSymbolizer, InspectError> {
    let malformed = InspectError::Malformed { part: "pclntab" };
    let (vaddr, data) = [".gopclntab", ".data.rel.ro.gopclntab"]
        .iter()
        .find_map(|name| binary.section_owned(name))
        .ok_or(malformed.clone())?;
    let mut symbolizer = parse(data).ok_or(malformed.clone())?;
    let end = symbolizer.entry(symbolizer.functions).ok_or(malformed.clone())?;
    // All functions must lie in code: the right text start is the one for which they do.
    let fits = |text: &u64| {
        let last = text.checked_add(u64::from(end)).and_then(|e| e.checked_sub(1));
        *text != 0 && binary.is_code(*text) && last.is_some_and(|l| binary.is_code(l))
    };
    symbolizer.text = text_candidates(binary, vaddr, &symbolizer)
        .into_iter()
        .find(fits)
        .ok_or(malformed)?;
    Ok(symbolizer)
}

fn parse(table: Vec<u8>) -> Option<GoSymbolizer> {
    let magic = u32::from_le_bytes(table.get(..4)?.try_into().ok()?);
    let (quantum, pointer) = (*table.get(6)?, *table.get(7)?);
    if !MAGICS.contains(&magic) || table.get(4..6)? != [0, 0] || quantum == 0 || pointer != 8 {
        return None;
    }
    let word = |n: usize| -> Option<usize> {
        let at = 8 + n * 8;
        usize::try_from(u64::from_le_bytes(table.get(at..at + 8)?.try_into().ok()?)).ok()
    };
    let functions = word(0)?;
    let (names, units, files, pc_values, funcs) = (word(3)?, word(4)?, word(5)?, word(6)?, word(7)?);
    // The functab: pairs of offsets, and the end of the last function.
    let size = functions.checked_mul(8)?.checked_add(4)?;
    table.get(funcs..funcs.checked_add(size)?)?;
    if functions == 0 {
        return None;
    }
    Some(GoSymbolizer {
        text: 0,
        quantum: quantum.into(),
        functions,
        names,
        units,
        files,
        pc_values,
        funcs,
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

    #[test]
    fn endless_tables_end() {
        let mut table = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        for word in [1u64, 0, 0, 0, 0, 0, 0, 72] {
            table.extend(word.to_le_bytes());
        }
        // One function 0..16 whose _func is in the table itself, then steps that never reach the target.
        table.extend([0, 0, 0, 0, 12, 0, 0, 0, 16, 0, 0, 0]);
        table.extend([1; 4096]);
        let mut symbolizer = parse(table).expect("a table");
        symbolizer.text = 0x1000;
        for vaddr in [0, 0xfff, 0x1000, 0x100f, 0x1010, u64::MAX] {
            let _ = symbolizer.lookup(vaddr);
        }
    }
}
