//! The functions and lines of stacks: what is read of an executable's pclntab, remembered.

use std::{collections::HashMap, fs::File, sync::Arc};

use super::unwind::{Stack, StackPc};
use crate::inspect::{Frame, GoImage, GoSymbolizer, InlinedFrame};

/// PCs whose functions are remembered.
const MOST: usize = 1 << 15;
/// These are hidden where they call anything but a panic's functions (go1.26, runtime/traceback.go, elideWrapperCalling).
const PANICS: [&str; 3] = ["runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap"];

/// Names of what is on the stacks of one process.
pub struct Places {
    exe: File,
    symbols: GoSymbolizer,
    /// Run-time less link-time address.
    pub bias: u64,
    known: HashMap<StackPc, Arc<[InlinedFrame]>>,
    /// By the address that a goroutine was started at.
    starts: HashMap<u64, Option<Arc<str>>>,
    /// By the address of a go statement.
    creators: HashMap<u64, Option<StackFrame>>,
}

/// A frame as it is shown, inlined ones too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFrame {
    pub frame: Frame,
    pub is_inlined: bool,
    pub pc: StackPc,
    /// Bytes from the begin of the function that has the code to the PC.
    pub offset: u64,
}

impl Places {
    /// For a process that maps the executable `exe`, which is `image`, at `bias`.
    pub fn new(image: &GoImage, exe: File, bias: u64) -> Self {
        Self {
            exe,
            symbols: image.symbols.clone(),
            bias,
            known: HashMap::new(),
            starts: HashMap::new(),
            creators: HashMap::new(),
        }
    }

    /// The functions at a PC: inlined ones first.
    pub fn functions(&mut self, pc: StackPc) -> Arc<[InlinedFrame]> {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let (symbols, exe) = (&self.symbols, &self.exe);
        let known = self.known.entry(pc);
        known.or_insert_with(|| symbols.inlined(exe, pc.place()).into()).clone()
    }

    /// The function that a goroutine was started with, as the runtime calls it; None for one that C made, or a plugin.
    pub fn started_with(&mut self, startpc: u64) -> Option<Arc<str>> {
        if let Some(known) = self.starts.get(&startpc) {
            return known.clone();
        }
        if self.starts.len() >= MOST {
            self.starts.clear();
        }
        let start = self.symbols.start(&self.exe, startpc.wrapping_sub(self.bias));
        let frame = start.and_then(|start| self.symbols.lookup(&self.exe, start));
        let function = frame.map(|frame| Arc::from(frame.function));
        self.starts.insert(startpc, function.clone());
        function
    }

    /// The begin of the function that a goroutine was started with: in place of a stack.
    pub fn start(&self, startpc: u64) -> StackPc {
        let vaddr = startpc.wrapping_sub(self.bias);
        StackPc {
            vaddr: self.symbols.start(&self.exe, vaddr).unwrap_or(vaddr),
            is_call: false,
        }
    }

    /// The go statement at `gopc`.
    pub fn creator(&mut self, gopc: u64) -> Option<StackFrame> {
        if let Some(known) = self.creators.get(&gopc) {
            return known.clone();
        }
        if self.creators.len() >= MOST {
            self.creators.clear();
        }
        let creator = self.read_creator(gopc);
        self.creators.insert(gopc, creator.clone());
        creator
    }

    fn read_creator(&mut self, gopc: u64) -> Option<StackFrame> {
        let vaddr = gopc.wrapping_sub(self.bias);
        let entry = self.symbols.code_at(&self.exe, vaddr)?.entry;
        let pc = StackPc {
            vaddr,
            is_call: vaddr > entry,
        };
        let functions = self.functions(pc);
        // The runtime names the function that has the code, though the line is of what is inlined there (printcreatedby1).
        let (inner, outer) = (functions.first()?, functions.last()?);
        Some(StackFrame {
            frame: Frame {
                function: outer.frame.function.clone(),
                ..inner.frame.clone()
            },
            is_inlined: false,
            pc,
            offset: vaddr - entry,
        })
    }

    /// The frames of a stack, innermost first, without the compiler's wrappers.
    pub fn frames(&mut self, stack: &Stack) -> Vec<StackFrame> {
        let mut frames = Vec::new();
        let mut calls_panic = false;
        for pc in &stack.pcs {
            for function in self.functions(*pc).iter() {
                if !function.is_wrapper || calls_panic {
                    frames.push(StackFrame {
                        frame: function.frame.clone(),
                        is_inlined: function.is_inlined,
                        pc: *pc,
                        offset: pc.vaddr.saturating_sub(function.entry),
                    });
                }
                calls_panic = PANICS.contains(&function.frame.function.as_str());
            }
        }
        frames
    }
}

/// Whether the runtime shows a function in what it prints (go1.26, runtime/traceback.go, showfuncinfo): its own are hidden, but for those
/// that users call, and a panic within a stack.
pub fn is_shown(function: &str, is_first: bool) -> bool {
    if function == "runtime.gopanic" {
        return !is_first;
    }
    let Some(name) = function.strip_prefix("runtime.") else {
        return function.contains('.');
    };
    let (receiver, name) = name
        .rsplit_once('.')
        .map_or((None, name), |(of, name)| (Some(of), name));
    let receiver = receiver.map(|of| {
        let pointer = of.strip_prefix("(*").and_then(|of| of.strip_suffix(')'));
        pointer.unwrap_or(of)
    });
    let is_exported = |name: &str| name.starts_with(|first: char| first.is_ascii_uppercase());
    is_exported(name) && receiver.is_none_or(is_exported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_own_functions_are_hidden() {
        for (function, is_first, expected) in [
            ("main.main", true, true),
            ("runtime.gopark", true, false),
            ("runtime.goexit", false, false),
            ("runtime.GC", true, true),
            ("runtime.(*Func).Entry", true, true),
            ("runtime.(*timers).run", true, false),
            ("runtime.gopanic", true, false),
            ("runtime.gopanic", false, true),
            ("runtime/pprof.writeGoroutine", true, true),
            ("_cgoexp", true, false),
        ] {
            assert_eq!(is_shown(function, is_first), expected, "{function}");
        }
    }
}
