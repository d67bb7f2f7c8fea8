//! Where an argument is, followed from the function's entry through moves into registers and stack slots.

use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// The integer registers that carry arguments in Go's ABIInternal and in System V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum X86Register {
    Rax,
    Rbx,
    Rcx,
    Rdx,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    Rbp,
}

/// Where an argument is when the probe fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgLocation {
    Register(X86Register),
    /// arm64: x0 to x30.
    X(u8),
    /// A 64-bit value in the target's memory at rsp plus this many bytes.
    Stack(i32),
}

/// All places that hold one argument; the first is the one to read.
pub(super) struct Homes(Vec<ArgLocation>);

impl Homes {
    /// Before the function's first instruction.
    pub(super) fn on_entry(location: ArgLocation) -> Self {
        Self(vec![location])
    }

    /// The place to read the argument from; None when it is lost.
    pub(super) fn first(&self) -> Option<ArgLocation> {
        self.0.first().copied()
    }

    /// Accounts for what `instruction` does to registers and stack.
    pub(super) fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let copy = self.copied_to(instruction);
        let used = info.info(instruction);
        let written = |r: Register| {
            used.used_registers()
                .iter()
                .any(|u| u.register().full_register() == r && is_write(u.access()))
        };
        self.0.retain(|home| match home {
            ArgLocation::Register(r) => !written(iced(*r)),
            ArgLocation::X(_) | ArgLocation::Stack(_) => true,
        });
        let stores = used.used_memory().iter().any(|m| is_write(m.access()));
        let pushes = instruction.mnemonic() == Mnemonic::Push;
        let moved = instruction.stack_pointer_increment();
        let rsp_written = written(Register::RSP);
        let adjust = match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Sub, OpKind::Immediate8to64 | OpKind::Immediate32to64) => {
                Some(-(instruction.immediate(1) as i64))
            }
            (Mnemonic::Add, OpKind::Immediate8to64 | OpKind::Immediate32to64) => Some(instruction.immediate(1) as i64),
            _ => None,
        };
        let shift = match (rsp_written, moved, adjust) {
            (false, ..) => Some(0),
            (true, 0, adjust) => adjust,
            (true, by, _) => Some(i64::from(by)),
        };
        // A store that isn't provably elsewhere may hit a spilled argument.
        let elsewhere = pushes || !stores || self.stored_beside(instruction);
        self.0.retain_mut(|home| match home {
            ArgLocation::Register(_) | ArgLocation::X(_) => true,
            ArgLocation::Stack(at) => match shift.and_then(|by| i32::try_from(i64::from(*at) - by).ok()) {
                Some(new) if elsewhere && new >= 0 => {
                    *at = new;
                    true
                }
                _ => false,
            },
        });
        self.0.extend(copy);
    }

    /// A `mov` of this argument into another register or a stack slot makes one more home.
    fn copied_to(&self, i: &Instruction) -> Option<ArgLocation> {
        let from = match i.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if i.op1_kind() == OpKind::Register => named(i.op1_register())?,
            _ => return None,
        };
        if !self.0.contains(&ArgLocation::Register(from)) {
            return None;
        }
        match i.op0_kind() {
            OpKind::Register => named(i.op0_register())
                .filter(|to| *to != from)
                .map(ArgLocation::Register),
            OpKind::Memory if is_stack_slot(i) => i32::try_from(i.memory_displacement64() as i64)
                .ok()
                .filter(|at| *at >= 0)
                .map(ArgLocation::Stack),
            _ => None,
        }
    }

    /// Whether this store to a stack slot leaves every spilled home of ours alone.
    fn stored_beside(&self, i: &Instruction) -> bool {
        let at = i.memory_displacement64() as i64;
        let size = i.memory_size().size() as i64;
        is_stack_slot(i)
            && size > 0
            && self.0.iter().all(|home| match home {
                ArgLocation::Stack(ours) => at + size <= i64::from(*ours) || i64::from(*ours) + 8 <= at,
                ArgLocation::Register(_) | ArgLocation::X(_) => true,
            })
    }
}

fn is_stack_slot(i: &Instruction) -> bool {
    i.memory_base() == Register::RSP && i.memory_index() == Register::None && i.segment_prefix() == Register::None
}

fn is_write(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

const NAMES: [(X86Register, Register); 15] = [
    (X86Register::Rax, Register::RAX),
    (X86Register::Rbx, Register::RBX),
    (X86Register::Rcx, Register::RCX),
    (X86Register::Rdx, Register::RDX),
    (X86Register::Rsi, Register::RSI),
    (X86Register::Rdi, Register::RDI),
    (X86Register::R8, Register::R8),
    (X86Register::R9, Register::R9),
    (X86Register::R10, Register::R10),
    (X86Register::R11, Register::R11),
    (X86Register::R12, Register::R12),
    (X86Register::R13, Register::R13),
    (X86Register::R14, Register::R14),
    (X86Register::R15, Register::R15),
    (X86Register::Rbp, Register::RBP),
];

fn iced(register: X86Register) -> Register {
    NAMES
        .iter()
        .find(|(ours, _)| *ours == register)
        .map_or(Register::None, |(_, theirs)| *theirs)
}

fn named(register: Register) -> Option<X86Register> {
    NAMES
        .iter()
        .find(|(_, theirs)| *theirs == register)
        .map(|(ours, _)| *ours)
}
