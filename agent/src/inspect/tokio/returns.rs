//! Where polls return: behind the calls of a task's poll function through its vtable.
//!
//! `RawTask::poll` is `(header.vtable.poll)(header)` (tokio 1.54, runtime/task/raw.rs), in line where workers, LocalSet and the blocking pool run tasks: a load of the
//! header's vtable, the header as the argument, and a call of the vtable's first word. All builds have it, also with LTO and without symbols.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::symbols::Symbols;
use super::vtable::HeaderLayout;
use crate::inspect::SiteError;
use crate::inspect::elf::Binary;
use crate::inspect::site::{self, ProbeSite};

/// Of one program: each scheduler has two or three.
const MAX_SITES: usize = 256;
/// Functions that are read for them.
const MAX_FUNCTIONS: usize = 1 << 16;
/// Bytes between the load of the vtable and the call.
const NEAR: usize = 48;

/// All of them.
pub(super) fn sites(binary: &Binary<'_>, symbols: &Symbols, header: HeaderLayout) -> Vec<Result<ProbeSite, SiteError>> {
    let mut found = Vec::new();
    for (begin, size) in functions(binary, symbols, header) {
        let code = symbols.code(binary, begin, size);
        for call in polls(&code, header) {
            let behind = call.next_ip();
            let function = site::Function {
                name: symbols.name(begin).unwrap_or("what runs tasks"),
                vaddr: behind,
                size: (begin + size).saturating_sub(behind),
            };
            found.push(site::find(binary, &function, &[]));
        }
        if found.len() >= MAX_SITES {
            break;
        }
    }
    found
}

/// Functions that may have such a call, by its bytes.
fn functions(binary: &Binary<'_>, symbols: &Symbols, header: HeaderLayout) -> BTreeSet<(u64, u64)> {
    let mut functions = BTreeSet::new();
    let Ok(offset) = i8::try_from(header.vtable_offset) else {
        return functions;
    };
    // mov register, [register+offset]; a base of r12 has one byte more.
    let loads = |code: &[u8]| {
        let mut windows = code.windows(4);
        windows.any(|bytes| match bytes {
            [0x8b, operand, 0x24, at, ..] if operand & 0xc7 == 0x44 => *at == offset as u8,
            [0x8b, operand, at, ..] => operand >> 6 == 1 && *at == offset as u8,
            _ => false,
        })
    };
    binary.scan(".text", NEAR, |start, data| {
        for at in memchr::memchr_iter(0xff, data) {
            // call [register], or [register+0].
            let Some(operand) = data
                .get(at + 1)
                .filter(|operand| *operand >> 3 & 7 == 2 && *operand >> 6 < 2)
            else {
                continue;
            };
            let is_rip = *operand & 0xc7 == 5;
            if !is_rip && loads(&data[at.saturating_sub(NEAR)..=at]) && functions.len() < MAX_FUNCTIONS {
                functions.extend(symbols.around(binary, start.saturating_add(at as u64)));
            }
        }
        None::<()>
    });
    functions
}

/// What a register holds, as far as it matters: one of the values that came into registers, or the word at the vtable's offset of one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Value(u32),
    Vtable(u32),
}

/// Calls of the first word of what was loaded from the first argument. Values are followed along the code as it lies.
fn polls(code: &[Instruction], header: HeaderLayout) -> Vec<&Instruction> {
    let mut info = InstructionInfoFactory::new();
    let mut held: [Held; 16] = std::array::from_fn(|i| Held::Value(i as u32));
    let mut next = held.len() as u32;
    let mut calls = Vec::new();
    for i in code {
        if i.flow_control() == FlowControl::IndirectCall
            && i.op0_kind() == OpKind::Memory
            && i.memory_index() == Register::None
            && i.memory_displacement64() == 0
            && let Some(Held::Vtable(of)) = number(i.memory_base()).map(|base| held[base])
            && held[number(Register::RDI).unwrap_or_default()] == Held::Value(of)
        {
            calls.push(i);
        }
        let result = result(i, &held, header);
        for used in info.info(i).used_registers() {
            if matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            ) && let Some(register) = number(used.register().full_register())
            {
                held[register] = Held::Value(next);
                next += 1;
            }
        }
        match i.flow_control() {
            // A function changes those that are not kept for its caller.
            FlowControl::Call | FlowControl::IndirectCall => {
                for register in CHANGED.into_iter().filter_map(number) {
                    held[register] = Held::Value(next);
                    next += 1;
                }
            }
            // What comes next is reached from elsewhere.
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return => {
                held = std::array::from_fn(|i| Held::Value(next + i as u32));
                next += held.len() as u32;
            }
            _ => {}
        }
        if let Some((register, value)) = result {
            held[register] = value;
        }
    }
    calls
}

/// System V, amd64.
const CHANGED: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// The register that a move fills, and with what, if that is known.
fn result(i: &Instruction, held: &[Held; 16], header: HeaderLayout) -> Option<(usize, Held)> {
    if i.mnemonic() != Mnemonic::Mov || i.op0_kind() != OpKind::Register || !i.op0_register().is_gpr64() {
        return None;
    }
    let to = number(i.op0_register())?;
    match i.op1_kind() {
        OpKind::Register => Some((to, held[number(i.op1_register())?])),
        OpKind::Memory if i.memory_index() == Register::None && i.memory_displacement64() == header.vtable_offset => {
            match held[number(i.memory_base())?] {
                Held::Value(of) => Some((to, Held::Vtable(of))),
                Held::Vtable(_) => None,
            }
        }
        _ => None,
    }
}

fn number(register: Register) -> Option<usize> {
    register.is_gpr64().then(|| register.number())
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    /// Whether a poll is seen in code that ends in a call.
    #[track_caller]
    fn check(code: &[u8], expected: bool) {
        let decoded: Vec<Instruction> = Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE)
            .iter()
            .collect();
        let found = polls(&decoded, HeaderLayout { vtable_offset: 16 });
        assert_eq!(found.len(), usize::from(expected), "{code:x?}");
        assert!(found.iter().all(|call| call.next_ip() == 0x1000 + code.len() as u64));
    }

    #[test]
    fn a_poll_is_a_call_through_the_vtable_of_its_argument() {
        const CALL: [u8; 2] = [0xff, 0x10];
        // mov rax, [r15+16]; mov rdi, r15, in both orders.
        let (load, argument) = ([0x49, 0x8b, 0x47, 0x10], [0x4c, 0x89, 0xff]);
        check(&[&load[..], &argument, &CALL].concat(), true);
        check(&[&argument[..], &load, &CALL].concat(), true);
        // mov rax, [r12+16]; mov rdi, r12
        check(
            &[&[0x49, 0x8b, 0x44, 0x24, 0x10][..], &[0x4c, 0x89, 0xe7], &CALL].concat(),
            true,
        );
        // mov rax, [rdi+16]
        let of_rdi = [0x48, 0x8b, 0x47, 0x10];
        check(&[&of_rdi[..], &CALL].concat(), true);
        // mov r14, rdi; mov rax, [r14+16]
        check(
            &[&[0x49, 0x89, 0xfe][..], &[0x49, 0x8b, 0x46, 0x10], &CALL].concat(),
            true,
        );
        // Another argument, a vtable at another offset, another word of it, and a value in between.
        check(&[&load[..], &[0x4c, 0x89, 0xf7], &CALL].concat(), false);
        check(&[&[0x49, 0x8b, 0x47, 0x18][..], &argument, &CALL].concat(), false);
        check(&[&load[..], &argument, &[0xff, 0x50, 0x08]].concat(), false);
        check(&[&load[..], &argument, &[0x31, 0xc0], &CALL].concat(), false);
        // A call in between changes rax and rdi.
        check(&[&load[..], &argument, &[0xe8, 0, 0, 0, 0], &CALL].concat(), false);
        // What a jump leads past.
        check(&[&load[..], &argument, &[0xeb, 0x00], &CALL].concat(), false);
    }
}
