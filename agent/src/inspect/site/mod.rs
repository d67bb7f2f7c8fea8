//! Where a uprobe goes: the cheapest instruction at which the arguments are still to be had.
//!
//! The kernel emulates a few instructions when a uprobe sits on them and single-steps all others out of line, which costs
//! several times more (Linux 6.18: arch/x86/kernel/uprobes.c, `push_setup_xol_ops`, `branch_setup_xol_ops`; arm64: `a64.rs`). A site is proved
//! by decoding from the function's first byte along the straight line, so it is an instruction's start by construction.

pub(crate) mod a64;
mod x86;

use super::{
    SiteError,
    arch::Arch,
    args::{ArgLocation, X86Register},
    elf::Binary,
};

/// What a hit costs the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteCost {
    /// The kernel emulates the instruction: one trap.
    Emulated,
    /// The instruction is executed out of line: a trap and a single step.
    SingleStepped,
}

/// An attach point proved by disassembling from the function's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSite {
    /// The function's name as the binary has it.
    pub function: String,
    /// Link-time address of the instruction.
    pub vaddr: u64,
    pub file_offset: u64,
    /// The instruction's bytes, to be checked again right before attaching.
    pub bytes: Vec<u8>,
    pub cost: SiteCost,
    /// Behind Go's stack check: a call that has to grow its stack first is counted once.
    pub behind_stack_check: bool,
    /// A branch within the function leads to or before this place (a compare-and-swap that failed, for instance): one call
    /// can hit it more than once. What reads the hits must take repetitions.
    pub may_repeat: bool,
    /// Where the needed arguments are, in the order they were asked for.
    pub args: Vec<ArgLocation>,
}

/// The function's code and what is needed of it.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) vaddr: u64,
    /// Bytes from the function's first to its last, as far as known.
    pub(crate) size: u64,
}

/// Functions are read up to here; the straight line of an entry is far shorter.
pub(super) const MAX_FUNCTION: u64 = 64 << 10;

/// Finds the site of `function` at which all of `needed` can be had.
pub(crate) fn find(
    binary: &Binary<'_>,
    function: &Function<'_>,
    needed: &[X86Register],
) -> Result<ProbeSite, SiteError> {
    let needed: Vec<ArgLocation> = needed.iter().copied().map(ArgLocation::Register).collect();
    find_from(binary, function, &needed)
}

/// As [`find`]; what is needed may be on the stack on entry, too.
pub(crate) fn find_from(
    binary: &Binary<'_>,
    function: &Function<'_>,
    needed: &[ArgLocation],
) -> Result<ProbeSite, SiteError> {
    located(binary, function, |code| {
        x86::place(function.name, code, function.vaddr, needed)
    })
}

/// Finds the site of a Go function at which what is `needed`, by where it is on entry, is still in its register, or on amd64 can
/// be had.
pub(crate) fn find_in_go(
    binary: &Binary<'_>,
    arch: Arch,
    function: &Function<'_>,
    needed: &[ArgLocation],
) -> Result<ProbeSite, SiteError> {
    located(binary, function, |code| match arch {
        Arch::Amd64 => x86::place(function.name, code, function.vaddr, needed),
        Arch::Arm64 => a64::place(function.name, code, function.vaddr, needed),
    })
}

/// Reads the function's code, has a site chosen in it, and says where in the file that is.
pub(super) fn located(
    binary: &Binary<'_>,
    function: &Function<'_>,
    choose: impl FnOnce(&[u8]) -> Result<ProbeSite, SiteError>,
) -> Result<ProbeSite, SiteError> {
    let no_code = || SiteError::NoCode {
        function: function.name.into(),
        vaddr: function.vaddr,
    };
    if !binary.is_code(function.vaddr) {
        return Err(no_code());
    }
    let code = binary
        .read_up_to(function.vaddr, function.size.clamp(1, MAX_FUNCTION))
        .ok_or_else(no_code)?;
    let mut site = choose(&code)?;
    site.file_offset = binary.file_offset(site.vaddr).ok_or_else(no_code)?;
    Ok(site)
}
