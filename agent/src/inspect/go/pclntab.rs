//! pclntab: functions, files and lines of a Go binary, stripped or not.
//!
//! Format: go1.26, src/runtime/symtab.go (`pcHeader`, `_func`, `funcline1`, `pcvalue`) and src/debug/gosym/pclntab.go. The
//! two magics in range differ in nothing read here: 0xfffffff0 (go1.18, 1.19) and 0xfffffff1 (go1.20 on).

mod code;
mod place;
#[cfg(test)]
mod sample;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use super::super::source::{Bytes, Windows};
pub use code::{CodeAt, InlinedFrame};
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

/// Link-time addresses → functions, files and lines. It knows where the table is; the table, which has a tenth of a large
/// executable, stays in its file, from which each look-up reads what it needs.
#[derive(Clone)]
pub struct GoSymbolizer {
    /// Where in the file the table begins, and the end of what it may be in.
    place: Range<u64>,
    /// runtime.text, which all addresses in the table are relative to.
    text: u64,
    header: Header,
    /// Where in the file go:func.* is: what functions' data is relative to. None where it is not known.
    data: Option<u64>,
    /// abi.FuncIDWrapper of the toolchain.
    wrapper: u8,
}

/// What the table's header says; places are bytes from the table's begin.
#[derive(Clone)]
struct Header {
    /// Which words a `_func` has.
    form: Form,
    /// What pc deltas are multiplied by.
    quantum: u64,
    functions: u64,
    names: u64,
    units: u64,
    files: u64,
    pc_values: u64,
    /// The functab, and the base of the offsets in it.
    funcs: u64,
}

/// The layouts of a `_func` (runtime/runtime2.go): of go1.18 and go1.19, and of go1.20 on, where startLine was added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Go118,
    Go120,
}

impl Form {
    /// Bytes up to the arrays of pcdata and funcdata; the last of them is nfuncdata.
    fn size(self) -> u64 {
        match self {
            Self::Go118 => 40,
            Self::Go120 => 44,
        }
    }
}

/// Steps of a pc-value table: the longest function of a large program has some ten thousand.
const MAX_STEPS: usize = 1 << 18;
const MAX_NAME: usize = 1 << 16;
/// A function of a name that is looked for, and the wrapper for the other ABI; of more nothing could be told.
const MAX_NAMESAKES: usize = 4;
/// abi.FUNCDATA_WrapInfo: of a wrapper, what it wraps (go1.18–1.27, internal/abi/symtab.go).
const WRAP_INFO: u64 = 7;

impl GoSymbolizer {
    /// The name, file and line of the instruction at `vaddr` (link-time), by the executable's bytes. For a return address, ask for
    /// the byte before it.
    pub fn lookup(&self, file: &dyn Bytes, vaddr: u64) -> Option<Frame> {
        self.on(&Windows::new(file)).frame(vaddr)
    }

    /// The first address of the function that a goroutine was started with, as the runtime names it: the compiler wraps `go f(x)`
    /// into a function without arguments, which says what it wraps (go1.26, runtime/tracestack.go, startPCForTrace). None where no
    /// function is.
    pub fn start(&self, file: &dyn Bytes, vaddr: u64) -> Option<u64> {
        let windows = Windows::new(file);
        let table = self.on(&windows);
        let entry = table.entry(table.find(self.offset(vaddr)?)?)?;
        table.wrapped(vaddr).or_else(|| self.text.checked_add(entry.into()))
    }

    /// The address range of the function at `vaddr`.
    pub fn function_range(&self, file: &dyn Bytes, vaddr: u64) -> Option<Range<u64>> {
        let windows = Windows::new(file);
        let table = self.on(&windows);
        table.range(table.find(self.offset(vaddr)?)?)
    }

    /// How many functions the table has.
    pub fn len(&self) -> u64 {
        self.header.functions
    }

    pub fn is_empty(&self) -> bool {
        self.header.functions == 0
    }

    /// All functions of these names: usually one each, two where an ABI wrapper has the same name.
    pub(super) fn functions_named<'n>(
        &self,
        file: &Windows<'_>,
        names: &[&'n str],
    ) -> HashMap<&'n str, Vec<Range<u64>>> {
        let table = self.on(file);
        let wanted: HashMap<&[u8], &'n str> = names.iter().map(|name| (name.as_bytes(), *name)).collect();
        // A name is searched for its end no further than it could be one of these: all of them may end at the same place.
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut found: HashMap<&str, Vec<Range<u64>>> = HashMap::new();
        let mut bytes = Vec::new();
        for index in 0..self.header.functions {
            let named = table.func(index).and_then(|func| {
                let at = table.field(func, 1)?;
                table.text_at(self.header.names, at, longest, &mut bytes)
            });
            if named.is_some()
                && let Some(name) = wanted.get(bytes.as_slice())
                && let Some(range) = table.range(index)
            {
                let ranges = found.entry(name).or_default();
                if ranges.len() < MAX_NAMESAKES {
                    ranges.push(range);
                }
            }
            if file.is_exhausted() {
                break;
            }
        }
        found
    }

    fn offset(&self, vaddr: u64) -> Option<u32> {
        u32::try_from(vaddr.checked_sub(self.text)?).ok()
    }

    fn on<'t>(&'t self, file: &'t Windows<'t>) -> Table<'t> {
        Table {
            symbols: self,
            header: &self.header,
            file,
        }
    }
}

impl fmt::Debug for GoSymbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "GoSymbolizer({} functions from {:#x})",
            self.header.functions, self.text
        )
    }
}

/// The table in its file.
struct Table<'t> {
    symbols: &'t GoSymbolizer,
    header: &'t Header,
    file: &'t Windows<'t>,
}

/// A `_func`, by its place: 32-bit words entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, …
#[derive(Clone, Copy)]
struct Func(u64);

impl Table<'_> {
    fn frame(&self, vaddr: u64) -> Option<Frame> {
        let offset = self.symbols.offset(vaddr)?;
        let func = self.func(self.find(offset)?)?;
        let field = |n| self.field(func, n);
        let (name, pcfile, pcln, unit) = (field(1)?, field(5)?, field(6)?, field(8)?);
        let entry = u64::from(field(0)?);
        let value = |of| self.pc_value(of, entry, u64::from(offset));
        Some(Frame {
            function: self.string(self.header.names, name)?,
            file: value(pcfile).and_then(|n| self.source(unit, n)).unwrap_or_default(),
            line: value(pcln).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        })
    }

    /// The function that the one at `vaddr` wraps. What is said must be a function's first byte.
    fn wrapped(&self, vaddr: u64) -> Option<u64> {
        let func = self.func(self.find(self.symbols.offset(vaddr)?)?)?;
        let wrapped = self.file.word(self.func_data(func, WRAP_INFO)?)?;
        let is_one = self.entry(self.find(wrapped)?)? == wrapped;
        is_one.then(|| self.symbols.text.checked_add(wrapped.into()))?
    }

    fn range(&self, index: u64) -> Option<Range<u64>> {
        let text = self.symbols.text;
        let start = text.checked_add(u64::from(self.entry(index)?))?;
        let end = text.checked_add(u64::from(self.entry(index + 1)?))?;
        (start < end).then_some(start..end)
    }

    /// Index of the last function that starts at or before `offset`.
    fn find(&self, offset: u32) -> Option<u64> {
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
    fn entry(&self, index: u64) -> Option<u32> {
        self.word(self.header.funcs.checked_add(index.checked_mul(8)?)?)
    }

    fn func(&self, index: u64) -> Option<Func> {
        let at = self.word(self.header.funcs.checked_add(index.checked_mul(8)?)?.checked_add(4)?)?;
        Some(Func(self.header.funcs.checked_add(at.into())?))
    }

    fn field(&self, func: Func, n: u64) -> Option<u32> {
        self.word(func.0.checked_add(n * 4)?)
    }

    /// A place of the table in the file.
    fn at(&self, place: u64) -> Option<u64> {
        let at = self.symbols.place.start.checked_add(place)?;
        (at < self.symbols.place.end).then_some(at)
    }

    fn word(&self, place: u64) -> Option<u32> {
        let at = self.at(place)?;
        (self.symbols.place.end - at >= 4).then(|| self.file.word(at))?
    }

    fn text_at(&self, base: u64, offset: u32, longest: usize, text: &mut Vec<u8>) -> Option<()> {
        let at = self.at(base.checked_add(offset.into())?)?;
        self.file.name(at, self.symbols.place.end, longest, text)
    }

    fn string(&self, base: u64, offset: u32) -> Option<String> {
        let mut text = Vec::new();
        self.text_at(base, offset, MAX_NAME, &mut text)?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// File number `n` of a compile unit: cutab maps it to an offset in the file table (symtab.go, funcfile).
    fn source(&self, unit: u32, n: i32) -> Option<String> {
        let slot = u64::from(unit).checked_add(u64::try_from(n).ok()?)?;
        let offset = self.word(self.header.units.checked_add(slot.checked_mul(4)?)?)?;
        (offset != u32::MAX).then(|| self.string(self.header.files, offset))?
    }

    /// Runs a pc-value table up to `target` (symtab.go, pcvalue): pairs of zig-zag value delta and pc delta.
    fn pc_value(&self, table: u32, entry: u64, target: u64) -> Option<i32> {
        if table == 0 {
            return None;
        }
        let mut at = self.header.pc_values.checked_add(table.into())?;
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

    fn varint(&self, at: &mut u64) -> Option<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.file.byte(self.at(*at)?)?;
            *at += 1;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
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
        let place = 0..table.len() as u64;
        let mut symbolizer = place::parse(&Windows::new(&table), place).expect("a table");
        symbolizer.text = 0x1000;
        for vaddr in [0, 0xfff, 0x1000, 0x100f, 0x1010, u64::MAX] {
            let _ = (symbolizer.lookup(&table, vaddr), symbolizer.start(&table, vaddr));
        }
    }

    /// Three functions of 16 bytes, the last of which says that it wraps what is at `wrapped`.
    #[track_caller]
    fn check(wrapped: u32, funcdata: u8, data: Option<u64>, expected: &str) {
        let names = b"\0main.a\0main.b\0main.main.gowrap1\0";
        let mut file = wrapped.to_le_bytes().to_vec();
        let mut table = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        let funcs = 72 + names.len() as u64;
        for word in [3, 0, 0, 72, funcs, funcs, funcs, funcs] {
            table.extend(word.to_le_bytes());
        }
        table.extend(names);
        for (i, at) in [(0u32, 28u32), (16, 72), (32, 116)] {
            table.extend([i, at].map(u32::to_le_bytes).as_flattened());
        }
        table.extend(48u32.to_le_bytes());
        for (entry, name) in [(0u32, 1u32), (16, 8), (32, 15)] {
            let mut func = vec![0; 44];
            func[..4].copy_from_slice(&entry.to_le_bytes());
            func[4..8].copy_from_slice(&name.to_le_bytes());
            func[43] = if entry == 32 { funcdata } else { 0 };
            table.extend(func);
        }
        for number in 0..u32::from(funcdata) {
            let offset = if number == 7 { 0u32 } else { u32::MAX };
            table.extend(offset.to_le_bytes());
        }
        file.extend(&table);
        let place = 4..file.len() as u64;
        let mut symbolizer = place::parse(&Windows::new(&file), place).expect("a table");
        (symbolizer.text, symbolizer.data) = (0x1000, data);
        let start = symbolizer.start(&file, 0x1024).expect("a function");
        assert_eq!(symbolizer.lookup(&file, start).unwrap().function, expected);
        assert_eq!(symbolizer.lookup(&file, 0x1020).unwrap().function, "main.main.gowrap1");
    }

    #[test]
    fn a_wrapper_is_called_what_it_wraps() {
        check(16, 8, Some(0), "main.b");
        check(0, 8, Some(0), "main.a");
        // Not a function's begin; beyond all; none said; nothing known of the data; the data beyond the file.
        check(17, 8, Some(0), "main.main.gowrap1");
        check(48, 8, Some(0), "main.main.gowrap1");
        check(16, 7, Some(0), "main.main.gowrap1");
        check(16, 8, None, "main.main.gowrap1");
        check(16, 8, Some(1 << 40), "main.main.gowrap1");
    }
}
