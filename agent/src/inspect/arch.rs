//! The machines whose binaries are known.

use object::elf;

use super::args::{ArgLocation, X86Register};

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// By e_machine.
    pub(super) fn of(machine: u16) -> Option<Self> {
        match machine {
            machine if machine == elf::EM_X86_64.0 => Some(Self::Amd64),
            machine if machine == elf::EM_AARCH64.0 => Some(Self::Arm64),
            _ => None,
        }
    }

    /// As GOARCH has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Where a Go function's first four integer arguments are on entry (go1.26, src/cmd/compile/abi-internal.md).
    pub fn go_arguments(self) -> [ArgLocation; 4] {
        use X86Register::{Rax, Rbx, Rcx, Rdi};
        match self {
            Self::Amd64 => [Rax, Rbx, Rcx, Rdi].map(ArgLocation::Register),
            Self::Arm64 => [0, 1, 2, 3].map(ArgLocation::X),
        }
    }

    /// Where a function finds the address that it returns to, on entry: on top of the stack, or in the link register.
    pub fn return_address(self) -> ArgLocation {
        match self {
            Self::Amd64 => ArgLocation::Stack(0),
            Self::Arm64 => ArgLocation::X(30),
        }
    }
}
