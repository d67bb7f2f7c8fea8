//! What unwinding needs of the code at a PC, and all functions that are inlined there: go1.26, src/runtime/traceback.go
//! (`unwinder`) and src/runtime/symtabinl.go (`inlineUnwinder`).

use super::super::super::source::{Bytes, Windows};
use super::super::buildinfo::GoVersion;
use super::{Form, Frame, Func, GoSymbolizer, Table};

/// What unwinding needs of the function at a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeAt {
    /// Link-time address of its first instruction.
    pub entry: u64,
    /// Bytes from the stack pointer to the return address (amd64), or to the caller's stack pointer (arm64).
    pub frame: u64,
    /// The last function of a stack: runtime.goexit and its like.
    pub is_top: bool,
    /// It sets the stack pointer in ways that no table has: what called it is not known.
    pub writes_sp: bool,
    /// The PC in its caller is not behind a call: a signal came there.
    pub is_injected: bool,
}

/// One of the functions at a PC: inlined ones first, the function that has them last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinedFrame {
    pub frame: Frame,
    /// The compiler's own, such as for a method of an embedded field: the runtime hides it.
    pub is_wrapper: bool,
    /// Its code is in another function's.
    pub is_inlined: bool,
    /// Link-time address of the first instruction of the function that has the code.
    pub entry: u64,
}

/// abi.FuncFlagTopFrame, abi.FuncFlagSPWrite (go1.18–1.27, internal/abi/symtab.go).
const TOP_FRAME: u8 = 1;
const SP_WRITE: u8 = 2;
/// abi.PCDATA_InlTreeIndex and abi.FUNCDATA_InlTree (the same).
const INLINE_INDEX: u64 = 2;
const INLINE_TREE: u64 = 3;
/// Functions inlined into each other, at most: more are a tree that leads back.
const DEEPEST: usize = 64;

/// abi.FuncIDWrapper: its number grew with the functions that the runtime knows by one.
pub(super) fn wrapper_id(version: &GoVersion) -> u8 {
    match version.minor {
        ..=21 => 21,
        22..=24 => 22,
        _ => 23,
    }
}

impl GoSymbolizer {
    /// What unwinding needs at `vaddr` (link-time). None where no function is, or one without a table of frames.
    pub fn code_at(&self, file: &dyn Bytes, vaddr: u64) -> Option<CodeAt> {
        let windows = Windows::new(file);
        let table = self.on(&windows);
        let offset = self.offset(vaddr)?;
        let func = table.func(table.find(offset)?)?;
        let entry = table.field(func, 0)?;
        let frame = table.pc_value(table.field(func, 4)?, entry.into(), offset.into())?;
        let (_, flag) = table.id_and_flag(func)?;
        let name = table.string(self.header.names, table.field(func, 1)?)?;
        let is_injected = ["runtime.sigpanic", "runtime.asyncPreempt", "runtime.debugCallV2"].contains(&name.as_str());
        Some(CodeAt {
            entry: self.text.checked_add(entry.into())?,
            frame: u64::try_from(frame).ok()?,
            is_top: flag & TOP_FRAME != 0,
            // It goes from one stack to the other, and both are in order at any time.
            writes_sp: flag & SP_WRITE != 0 && name != "runtime.cgocallback",
            is_injected,
        })
    }

    /// Whether it is known which functions are inlined where.
    pub fn has_inlined(&self) -> bool {
        self.data.is_some()
    }

    /// All functions at `vaddr` (link-time), as runtime.CallersFrames has them. For a return address, ask for the byte before it.
    pub fn inlined(&self, file: &dyn Bytes, vaddr: u64) -> Vec<InlinedFrame> {
        let windows = Windows::new(file);
        let table = self.on(&windows);
        let mut frames = Vec::new();
        let Some(func) = self
            .offset(vaddr)
            .and_then(|offset| table.find(offset))
            .and_then(|index| table.func(index))
        else {
            return frames;
        };
        let Some(entry) = table
            .field(func, 0)
            .and_then(|entry| self.text.checked_add(entry.into()))
        else {
            return frames;
        };
        let mut at = vaddr;
        while let Some(frame) = table.frame(at) {
            let inlined = table.inlined_at(func, at).filter(|_| frames.len() < DEEPEST);
            let Some(call) = inlined else {
                let id = table.id_and_flag(func).map_or(0, |(id, _)| id);
                frames.push(InlinedFrame {
                    is_wrapper: id == self.wrapper,
                    is_inlined: false,
                    entry,
                    frame,
                });
                break;
            };
            let function = call.function;
            frames.push(InlinedFrame {
                is_wrapper: call.id == self.wrapper,
                is_inlined: true,
                entry,
                frame: Frame { function, ..frame },
            });
            at = call.parent;
        }
        for inlined in &mut frames {
            inlined.frame.function = shortened(&inlined.frame.function);
        }
        frames
    }
}

/// A function that is inlined at a PC.
struct Call {
    id: u8,
    function: String,
    /// Link-time address of an instruction at the place of the call.
    parent: u64,
}

impl Table<'_> {
    fn id_and_flag(&self, func: Func) -> Option<(u8, u8)> {
        let at = self.at(func.0.checked_add(self.header.form.size() - 4)?)?;
        Some((self.file.byte(at)?, self.file.byte(at.checked_add(1)?)?))
    }

    /// The innermost function that is inlined at `vaddr`, by the tree of the one that has its code.
    fn inlined_at(&self, func: Func, vaddr: u64) -> Option<Call> {
        let form = self.header.form;
        let pcdata = u64::from(self.field(func, 7)?);
        if pcdata <= INLINE_INDEX {
            return None;
        }
        let tables = func.0.checked_add(form.size())?;
        let entry = self.field(func, 0)?;
        let offset = self.symbols.offset(vaddr)?;
        let indices = self.word(tables.checked_add(INLINE_INDEX * 4)?)?;
        let index = u64::try_from(self.pc_value(indices, entry.into(), offset.into())?).ok()?;
        let tree = self.func_data(func, INLINE_TREE)?;
        // runtime.inlinedCall: until go1.19 with the place of the call, which the PC of it gives as well.
        let (size, id, name, parent) = match form {
            Form::Go118 => (20, 2, 12, 16),
            Form::Go120 => (16, 0, 4, 8),
        };
        let call = tree.checked_add(index.checked_mul(size)?)?;
        let word = |at: u64| self.file.word(call.checked_add(at)?);
        Some(Call {
            id: self.file.byte(call.checked_add(id)?)?,
            function: self.string(self.header.names, word(name)?)?,
            parent: self
                .symbols
                .text
                .checked_add(entry.checked_add(word(parent)?)?.into())?,
        })
    }

    /// Where in the file a function's data of one kind is.
    pub(super) fn func_data(&self, func: Func, kind: u64) -> Option<u64> {
        let size = self.header.form.size();
        let counted = self.file.byte(self.at(func.0.checked_add(size - 1)?)?)?;
        if u64::from(counted) <= kind {
            return None;
        }
        let data = u64::from(self.field(func, 7)?).checked_add(kind)?;
        let offset = self.word(func.0.checked_add(size)?.checked_add(data * 4)?)?;
        (offset != u32::MAX).then(|| self.symbols.data?.checked_add(offset.into()))?
    }
}

/// A function's name as the runtime prints it: without what it is generic in (runtime/symtab.go, funcNamePiecesForPrint).
fn shortened(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(begin), Some(end)) if begin < end => format!("{}[...]{}", &name[..begin], &name[end + 1..]),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_without_what_they_are_generic_in() {
        for (name, expected) in [
            ("main.main", "main.main"),
            ("main.map[go.shape.int,go.shape.[]string]", "main.map[...]"),
            ("main.(*Cache[...]).Get", "main.(*Cache[...]).Get"),
            ("main.(*C[go.shape.int]).Get.func1", "main.(*C[...]).Get.func1"),
            ("main.]odd[", "main.]odd["),
        ] {
            assert_eq!(shortened(name), expected);
        }
    }
}
