//! The symbols of a Rust binary that have to do with tokio, by address.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

use super::super::SiteError;
use super::super::args::X86Register;
use super::super::elf::{Binary, Functions};
use super::super::site::{self, ProbeSite};
use super::names;

/// One function; several symbols may name it, when identical functions were merged.
pub(super) struct Function {
    pub(super) size: u64,
    /// Demangled.
    pub(super) names: Vec<String>,
}

/// Functions whose (mangled) name has `tokio` in it.
pub(super) struct Symbols {
    functions: BTreeMap<u64, Function>,
    /// All functions, read when one is asked for that has no symbol.
    all: OnceCell<Functions>,
    /// Bytes of code that may still be decoded.
    left: Cell<u64>,
    /// Bytes of all names. Once they are over [`MAX_TEXT`] none is kept, and it is the mangled ones that are counted.
    text: u64,
}

/// The type whose methods a task's functions consist of (runtime/task/harness.rs).
pub(super) const HARNESS: &str = "tokio::runtime::task::harness::Harness";
const MAX_CALLEES: usize = 16;
/// Longer functions are read up to here when their calls are listed.
const MAX_FUNCTION: u64 = 32 << 10;
/// Bytes of code that are decoded of one file: the largest known take a hundredth.
const MAX_CODE: u64 = 256 << 20;
/// Names of one function: those whose code the linker merged.
const MAX_NAMES: usize = 64;
/// Bytes of all names.
pub(super) const MAX_TEXT: u64 = 24 << 20;

impl Symbols {
    pub(super) fn of(binary: &Binary<'_>) -> Self {
        let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
        let mut text = 0;
        binary.symbols(|symbol| {
            if !symbol.is_function || !symbol.name.contains("tokio") {
                return None;
            }
            if text > MAX_TEXT {
                text += symbol.name.len() as u64;
                return None;
            }
            let function = functions.entry(symbol.vaddr).or_insert(Function {
                size: 0,
                names: Vec::new(),
            });
            function.size = function.size.max(symbol.size);
            if function.names.len() < MAX_NAMES {
                let name = names::demangle(symbol.name);
                text += name.len() as u64;
                function.names.push(name);
            }
            None::<()>
        });
        Self {
            functions,
            all: OnceCell::new(),
            left: Cell::new(MAX_CODE),
            text,
        }
    }

    /// Bytes of all names: over [`MAX_TEXT`] some of them are missing here.
    pub(super) fn text(&self) -> u64 {
        self.text
    }

    /// Whether there was more code than is decoded of one file: what was found then is not all.
    pub(super) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    pub(super) fn at(&self, vaddr: u64) -> Option<&Function> {
        self.functions.get(&vaddr)
    }

    pub(super) fn is_named(&self, vaddr: u64, wanted: impl Fn(&str) -> bool) -> bool {
        self.at(vaddr).is_some_and(|f| f.names.iter().any(|n| wanted(n)))
    }

    /// The function that holds `vaddr`: its begin, and its size, to which padding may belong.
    pub(super) fn around(&self, binary: &Binary<'_>, vaddr: u64) -> Option<(u64, u64)> {
        let before = self.functions.range(..=vaddr).next_back();
        let named = before.map(|(begin, function)| (*begin, function.size));
        named
            .filter(|(begin, size)| vaddr - begin < *size)
            .or_else(|| self.all(binary).around(vaddr))
    }

    /// The size of the function that begins at `vaddr`, where that is known.
    pub(super) fn size(&self, binary: &Binary<'_>, vaddr: u64) -> Option<u64> {
        let (begin, size) = self.around(binary, vaddr)?;
        (begin == vaddr).then_some(size)
    }

    /// All functions of the binary, with symbols or without.
    pub(super) fn all(&self, binary: &Binary<'_>) -> &Functions {
        self.all.get_or_init(|| Functions::of(binary))
    }

    /// A name of the function at `vaddr`.
    pub(super) fn name(&self, vaddr: u64) -> Option<&str> {
        let name = self.at(vaddr)?.names.first()?;
        Some(name)
    }

    /// Functions of which one name is wanted, with that name.
    pub(super) fn matching(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = (u64, &Function, &str)> {
        self.functions.iter().filter_map(move |(vaddr, function)| {
            let name = function.names.iter().find(|n| wanted(n))?;
            Some((*vaddr, function, name.as_str()))
        })
    }

    /// The probe site in the function at `vaddr`.
    pub(super) fn site(
        &self,
        binary: &Binary<'_>,
        vaddr: u64,
        name: &str,
        needed: &[X86Register],
    ) -> Result<ProbeSite, SiteError> {
        let size = self.size(binary, vaddr).unwrap_or(0);
        site::find(binary, &site::Function { name, vaddr, size }, needed)
    }

    /// Whether the function at `from` calls a wanted one, itself or through a method of `Harness`, at most three deep.
    pub(super) fn reaches(&self, binary: &Binary<'_>, from: u64, wanted: impl Fn(&str) -> bool) -> bool {
        let mut level = vec![from];
        for _ in 0..=3 {
            let targets: BTreeSet<u64> = level
                .iter()
                .flat_map(|f| self.instructions(binary, *f))
                .filter_map(|i| call_target(binary, &i))
                .collect();
            if targets.iter().any(|t| self.is_named(*t, &wanted)) {
                return true;
            }
            let is_harness = |t: &u64| self.is_named(*t, |n| n.starts_with(HARNESS));
            level = targets.into_iter().filter(is_harness).take(MAX_CALLEES).collect();
        }
        false
    }

    pub(super) fn instructions(&self, binary: &Binary<'_>, vaddr: u64) -> Vec<Instruction> {
        self.code(binary, vaddr, self.size(binary, vaddr).unwrap_or(64))
    }

    /// So many bytes of code at `vaddr`.
    pub(super) fn code(&self, binary: &Binary<'_>, vaddr: u64, size: u64) -> Vec<Instruction> {
        let size = size.clamp(1, MAX_FUNCTION);
        let code = if binary.is_code(vaddr) {
            binary.read_up_to(vaddr, size)
        } else {
            None
        };
        let code = code.unwrap_or_default();
        // Functions may overlap, and any number of tables refer to them.
        self.left.set(self.left.get().saturating_sub(code.len() as u64));
        if self.is_exhausted() {
            return Vec::new();
        }
        let decoder = Decoder::with_ip(64, &code, vaddr, DecoderOptions::NONE);
        decoder.into_iter().take_while(|i| !i.is_invalid()).collect()
    }
}

/// Where a call, or a jump out of the function, goes: direct, or through a GOT slot (`call [rip+slot]`, how rustc calls
/// functions of other codegen units).
pub(super) fn call_target(binary: &Binary<'_>, instruction: &Instruction) -> Option<u64> {
    match instruction.flow_control() {
        FlowControl::Call | FlowControl::UnconditionalBranch => Some(instruction.near_branch_target()),
        FlowControl::IndirectCall | FlowControl::IndirectBranch
            if instruction.op0_kind() == OpKind::Memory && instruction.is_ip_rel_memory_operand() =>
        {
            binary.pointer(instruction.ip_rel_memory_address())
        }
        _ => None,
    }
}
