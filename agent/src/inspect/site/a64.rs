//! arm64: where a uprobe goes in a Go function, and what a function refers to.
//!
//! Every instruction is four bytes, so any is an instruction's start; what has to be proved is the way from the function's first
//! byte. The kernel simulates branches, ADR and ADRP, and steps all else out of line (Linux, arch/arm64/kernel/probes/decode-insn.c,
//! `arm_probe_decode_insn`). Kernels differ in NOP and in LDR of a literal: neither is used.

use std::collections::BTreeSet;

use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction, Opcode, Operand, SIMDSizeCode, SizeCode};

use super::{ProbeSite, SiteCost};
use crate::inspect::{SiteError, args::ArgLocation};

const SIZE: usize = 4;
/// The register that holds g (go1.26, src/cmd/compile/abi-internal.md).
const G: u16 = 28;
/// Register 31 where it is not the stack pointer.
const ZERO: u16 = 31;

/// Code and its address → the site at which the registers `needed` hold what they held on entry (its file offset is left 0).
pub(in crate::inspect) fn place(
    name: &str,
    code: &[u8],
    start: u64,
    needed: &[ArgLocation],
) -> Result<ProbeSite, SiteError> {
    let line = straight_line(code, start, needed);
    let Some(entry) = line.first() else {
        return Err(SiteError::Undecodable {
            function: name.into(),
            vaddr: start,
        });
    };
    let targets = branch_targets(code, start);
    let repeats = |step: &Step| {
        let from = if step.behind_stack_check { start + 1 } else { start };
        targets.range(from..=step.vaddr).next().is_some()
    };
    let usable = |step: &&Step| step.simulated && step.intact;
    let chosen = line
        .iter()
        .find(|step| step.behind_stack_check && usable(step) && !repeats(step))
        .or_else(|| line.iter().find(usable));
    let step = match chosen {
        Some(step) => step,
        None if entry.intact && !entry.refused => entry,
        None => {
            return Err(SiteError::Refused {
                function: name.into(),
                vaddr: start,
            });
        }
    };
    Ok(ProbeSite {
        function: name.into(),
        vaddr: step.vaddr,
        file_offset: 0,
        bytes: step.word.to_le_bytes().to_vec(),
        cost: if step.simulated {
            SiteCost::Emulated
        } else {
            SiteCost::SingleStepped
        },
        behind_stack_check: step.behind_stack_check,
        may_repeat: repeats(step),
        args: needed.to_vec(),
    })
}

struct Step {
    vaddr: u64,
    word: u32,
    instruction: Instruction,
    simulated: bool,
    refused: bool,
    behind_stack_check: bool,
    /// No needed register was written before.
    intact: bool,
}

/// The instructions that every call executes, up to and including the first that branches behind the stack check. A probe between
/// an exclusive load and its store would make the store fail for ever: the line ends before the load.
fn straight_line(code: &[u8], start: u64, needed: &[ArgLocation]) -> Vec<Step> {
    const LONGEST: usize = 256;
    let mut steps: Vec<Step> = Vec::new();
    let (mut behind, mut intact) = (false, true);
    for (vaddr, word, instruction) in instructions(code, start).take(LONGEST) {
        if is_exclusive(word) {
            break;
        }
        steps.push(Step {
            vaddr,
            word,
            instruction,
            simulated: is_simulated(word),
            refused: is_refused(word),
            behind_stack_check: behind,
            intact,
        });
        if is_branch_class(word) {
            match stack_check(&steps) {
                Check::Over if !behind => behind = true,
                Check::Underflow if !behind => {}
                _ => break,
            }
        }
        intact &= !writes(&instruction).any(|register| needed.contains(&ArgLocation::X(register as u8)));
    }
    steps
}

enum Check {
    Over,
    /// Frames of several hundred KB are tested for wrap-around first; the check goes on.
    Underflow,
    None,
}

/// What the last of `steps`, a branch, is to the stack check: `ldr x16, [x28, #16]`, `cmp` of sp (or x17, computed from sp)
/// with x16, `b.ls` (go1.26, cmd/internal/obj/arm64/obj7.go, stacksplit; #24 on a stack of the runtime's own).
fn stack_check(steps: &[Step]) -> Check {
    const LOWER: u8 = 3;
    const LOWER_OR_SAME: u8 = 9;
    let [head @ .., before, branch] = steps else {
        return Check::None;
    };
    let loads_guard = head.iter().any(|step| {
        step.instruction.opcode == Opcode::LDR
            && matches!(step.instruction.operands[0], Operand::Register(SizeCode::X, 16))
            && matches!(step.instruction.operands[1], Operand::RegPreIndex(G, 16 | 24, false))
    });
    let subtracts = before.instruction.opcode == Opcode::SUBS;
    match branch.instruction.opcode {
        Opcode::Bcc(LOWER_OR_SAME) if loads_guard && subtracts && is_guard_compare(&before.instruction) => Check::Over,
        Opcode::Bcc(LOWER) if loads_guard && subtracts => match before.instruction.operands[0] {
            Operand::Register(_, 17) | Operand::RegisterOrSP(_, 17) => Check::Underflow,
            _ => Check::None,
        },
        _ => Check::None,
    }
}

fn is_guard_compare(compare: &Instruction) -> bool {
    let [result, left, right, _] = &compare.operands;
    matches!(result, Operand::Register(SizeCode::X, ZERO))
        && matches!(
            left,
            Operand::RegisterOrSP(SizeCode::X, 17 | 31) | Operand::Register(SizeCode::X, 17)
        )
        && matches!(right, Operand::RegShift(_, 0, SizeCode::X, 16))
}

/// Linux, arch/arm64/include/asm/insn.h: b and bl, cbz and cbnz, tbz and tbnz, b.cond, br, blr and ret, adr and adrp.
fn is_simulated(word: u32) -> bool {
    word & 0x7c00_0000 == 0x1400_0000
        || word & 0x7c00_0000 == 0x3400_0000
        || word & 0xff00_0010 == 0x5400_0000
        || matches!(word & 0xffff_fc1f, 0xd61f_0000 | 0xd63f_0000 | 0xd65f_0000)
        || word & 0x1f00_0000 == 0x1000_0000
}

/// Branches, exceptions and system instructions that are not simulated, loads of literals, exclusive accesses and
/// what is no instruction: what the kernel refuses, and the little of their classes that it would step.
fn is_refused(word: u32) -> bool {
    let loads_literal = word & 0x3b00_0000 == 0x1800_0000;
    let is_reserved = word & 0x1e00_0000 == 0;
    (is_branch_class(word) && !is_simulated(word)) || loads_literal || is_exclusive(word) || is_reserved
}

fn is_branch_class(word: u32) -> bool {
    word & 0x1c00_0000 == 0x1400_0000
}

/// Load and store exclusive, and their neighbours: load-acquire, store-release, compare-and-swap.
fn is_exclusive(word: u32) -> bool {
    word & 0x3f00_0000 == 0x0800_0000
}

fn instructions(code: &[u8], start: u64) -> impl Iterator<Item = (u64, u32, Instruction)> {
    let decoder = InstDecoder::default();
    code.chunks_exact(SIZE).zip(0u64..).map_while(move |(bytes, index)| {
        let instruction = decoder.decode(&mut U8Reader::new(bytes)).ok()?;
        let word = u32::from_le_bytes(bytes.try_into().ok()?);
        Some((start.wrapping_add(index * SIZE as u64), word, instruction))
    })
}

/// The general registers that an instruction may write; of what is not known, all that it names.
fn writes(i: &Instruction) -> impl Iterator<Item = u16> {
    use Opcode::{
        ADD, ADDS, ADR, ADRP, AND, ANDS, EOR, LDP, LDR, LDRB, LDRH, LDRSW, LDUR, MOVK, MOVN, MOVZ, ORR, SBFM, STP, STR,
        STRB, STRH, STUR, SUB, SUBS, UBFM,
    };
    // How many operands, from the first, are results.
    let results = match i.opcode {
        STR | STRB | STRH | STUR | STP => 0,
        ADD | ADDS | ADR | ADRP | AND | ANDS | EOR | ORR | SUB | SUBS | MOVK | MOVN | MOVZ | SBFM | UBFM => 1,
        LDR | LDRB | LDRH | LDRSW | LDUR => 1,
        LDP => 2,
        _ => usize::MAX,
    };
    let operands = i.operands;
    operands.into_iter().enumerate().flat_map(move |(index, operand)| {
        let is_result = index < results;
        let (first, count) = match operand {
            Operand::Register(_, register) if is_result && register != ZERO => (register, 1),
            Operand::RegisterOrSP(_, register) | Operand::RegShift(_, _, _, register) if is_result => (register, 1),
            Operand::RegisterPair(_, register) if is_result => (register, 2),
            Operand::RegPreIndex(base, _, true)
            | Operand::RegPostIndex(base, _)
            | Operand::RegPostIndexReg(base, _) => (base, 1),
            _ => (0, 0),
        };
        first..first + count
    })
}

/// Targets of direct branches within the code.
fn branch_targets(code: &[u8], start: u64) -> BTreeSet<u64> {
    instructions(code, start)
        .filter(|(_, word, i)| is_branch_class(*word) && i.opcode != Opcode::BL)
        .filter_map(|(vaddr, _, i)| offset(&i).map(|by| vaddr.wrapping_add_signed(by)))
        .collect()
}

/// Addresses and lengths of the conditional branches that are reached from the function's first byte and follow a comparison
/// with `number`: `cmp xN, #number` or `movz xD, #number`, `cmp xN, xD`, and `b.cond`. None that an exclusive load leads to without a branch between.
pub(in crate::inspect) fn branches(code: &[u8], start: u64, number: u16) -> Vec<(u64, usize)> {
    let decoder = InstDecoder::default();
    let read = |at: u64| {
        let offset = usize::try_from(at.checked_sub(start)?).ok()?;
        let bytes = code.get(offset..offset.checked_add(SIZE)?)?;
        let instruction = decoder.decode(&mut U8Reader::new(bytes)).ok()?;
        Some((u32::from_le_bytes(bytes.try_into().ok()?), instruction))
    };
    let (mut seen, mut open, mut found) = (BTreeSet::new(), vec![start], Vec::new());
    while let Some(begin) = open.pop() {
        // The two words before, none at the begin of a way.
        let (mut at, mut before, mut exclusive) = (begin, [0, 0], false);
        while seen.insert(at) {
            let Some((word, instruction)) = read(at) else { break };
            exclusive |= is_exclusive(word);
            if is_branch_class(word) {
                let is_conditional = word & 0xff00_0010 == 0x5400_0000;
                if is_conditional && !exclusive && compares(before, number) {
                    found.push((at, SIZE));
                }
                exclusive = false;
                let calls = matches!(instruction.opcode, Opcode::BL | Opcode::BLR);
                let target = offset(&instruction).map(|by| at.wrapping_add_signed(by));
                open.extend(target.filter(|_| !calls));
                if matches!(instruction.opcode, Opcode::B | Opcode::BR | Opcode::RET) {
                    break;
                }
            }
            before = [before[1], word];
            at = at.wrapping_add(SIZE as u64);
        }
    }
    found
}

/// `cmp xN, #number` (subs xzr, xN, #number), or `movz xD, #number`, then `cmp xN, xD` (subs xzr, xN, xD).
fn compares([moves, compares]: [u32; 2], number: u16) -> bool {
    let register = moves & 0x1f;
    if compares & 0xffc0_001f == 0xf100_001f {
        return compares >> 10 & 0xfff == u32::from(number);
    }
    moves == 0xd280_0000 | u32::from(number) << 5 | register
        && compares & 0xffe0_fc1f == 0xeb00_001f
        && compares >> 16 & 0x1f == register
}

fn offset(i: &Instruction) -> Option<i64> {
    i.operands.iter().find_map(|operand| match operand {
        Operand::PCOffset(by) => Some(*by),
        _ => None,
    })
}

/// What a function refers to by ADRP and what follows it.
#[derive(Default)]
pub(in crate::inspect) struct References {
    /// Addresses that are taken.
    pub(in crate::inspect) addresses: Vec<u64>,
    /// Address and bytes of each place that is read or written.
    pub(in crate::inspect) values: Vec<(u64, usize)>,
    /// The first immediate that is compared with.
    pub(in crate::inspect) compared: Option<u64>,
}

/// Follows addresses from ADRP through ADD to loads and stores, along the code as it lies. What a branch brings along is not
/// followed, so some of it may be untrue: it is evidence, to be weighed with other functions'.
pub(in crate::inspect) fn references(code: &[u8], start: u64) -> References {
    let mut found = References::default();
    let mut known: [Option<u64>; 32] = [None; 32];
    for (vaddr, word, i) in instructions(code, start) {
        if is_branch_class(word)
            && !matches!(
                i.opcode,
                Opcode::Bcc(_) | Opcode::CBZ | Opcode::CBNZ | Opcode::TBZ | Opcode::TBNZ
            )
        {
            known = [None; 32];
            continue;
        }
        let [first, second, third, _] = &i.operands;
        if i.opcode == Opcode::SUBS
            && let (Operand::Register(_, ZERO), Operand::Immediate(with)) = (first, third)
        {
            found.compared = found.compared.or(Some(u64::from(*with)));
        }
        let mut set = None;
        match (i.opcode, first) {
            (Opcode::ADRP, Operand::Register(_, to)) => {
                let page = offset(&i).map(|by| (vaddr & !0xfff).wrapping_add_signed(by));
                set = page.map(|page| (*to, page));
            }
            (Opcode::ADD, Operand::RegisterOrSP(SizeCode::X, to)) => {
                if let (Operand::RegisterOrSP(_, base), Some(by)) = (second, immediate(third))
                    && let Some(base) = known.get(usize::from(*base)).copied().flatten()
                {
                    let at = base.wrapping_add(by);
                    found.addresses.push(at);
                    set = Some((*to, at));
                }
            }
            _ => found.access(&i, &known),
        }
        for register in writes(&i) {
            if let Some(slot) = known.get_mut(usize::from(register)) {
                *slot = None;
            }
        }
        if let Some((register, at)) = set
            && let Some(slot) = known.get_mut(usize::from(register))
        {
            *slot = Some(at);
        }
    }
    found
}

impl References {
    /// Takes in a load or store by a base that is known.
    fn access(&mut self, i: &Instruction, known: &[Option<u64>; 32]) {
        let base = i.operands.iter().find_map(|operand| match operand {
            Operand::RegPreIndex(base, by, false) => Some((known.get(usize::from(*base)).copied().flatten()?, *by)),
            _ => None,
        });
        let (Some((base, by)), Some(size)) = (base, width(i)) else {
            return;
        };
        let at = base.wrapping_add_signed(i64::from(by));
        self.values.push((at, size));
        if matches!(i.opcode, Opcode::LDP | Opcode::STP) {
            self.values.push((at.wrapping_add(size as u64), size));
        }
    }
}

fn immediate(operand: &Operand) -> Option<u64> {
    match operand {
        Operand::Immediate(by) => Some(u64::from(*by)),
        Operand::Imm64(by) => Some(*by),
        Operand::ImmShift(by, shift) => Some(u64::from(*by) << (shift & 63)),
        _ => None,
    }
}

/// Bytes that a load or store moves by one register.
fn width(i: &Instruction) -> Option<usize> {
    use Opcode::{LDARB, LDRB, LDRH, LDRSB, LDRSH, LDRSW, STLRB, STLXR, STRB, STRH, STXR};
    match i.opcode {
        LDRB | LDRSB | STRB | LDARB | STLRB => return Some(1),
        LDRH | LDRSH | STRH => return Some(2),
        LDRSW => return Some(4),
        _ => {}
    }
    // An exclusive store's first register says whether it was done.
    let moved = usize::from(matches!(i.opcode, STLXR | STXR));
    Some(match i.operands[moved] {
        Operand::Register(SizeCode::X, _) => 8,
        Operand::Register(SizeCode::W, _) => 4,
        Operand::SIMDRegister(SIMDSizeCode::Q, _) => 16,
        Operand::SIMDRegister(SIMDSizeCode::D, _) => 8,
        Operand::SIMDRegister(SIMDSizeCode::S, _) => 4,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "a64_tests.rs"]
mod tests;
