//! amd64: the place of a probe in a function's code.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, Register};

use super::{ProbeSite, SiteCost};
use crate::inspect::{
    SiteError,
    args::{ArgLocation, Homes},
};

/// The pure part of [`super::find`]: code and its address → site (its file offset is left 0).
pub(crate) fn place(name: &str, code: &[u8], start: u64, needed: &[ArgLocation]) -> Result<ProbeSite, SiteError> {
    let line = straight_line(code, start, needed);
    let (Some(first), Some(entry)) = (
        line.first(),
        line.iter().find(|s| s.instruction.code() != Code::Endbr64),
    ) else {
        return Err(SiteError::Undecodable {
            function: name.into(),
            vaddr: start,
        });
    };
    let targets = branch_targets(code, start);
    let repeats = |step: &Step| {
        let from = if step.behind_stack_check { start + 1 } else { start };
        targets.iter().any(|t| (from..=step.instruction.ip()).contains(t))
    };
    let usable = |s: &&Step| s.emulated && s.args.is_some();
    let is_push = |s: &&Step| s.instruction.mnemonic() == Mnemonic::Push;
    let chosen = line
        .iter()
        .find(|s| s.behind_stack_check && is_push(s) && usable(s))
        .or_else(|| line.iter().find(|s| s.behind_stack_check && usable(s) && !repeats(s)))
        .or_else(|| line.iter().find(usable));
    let step = match chosen {
        Some(step) => step,
        // The function's first byte, behind endbr64: every argument is in place there.
        None if entry.args.is_some() && !entry.refused => entry,
        None => {
            return Err(SiteError::Refused {
                function: name.into(),
                vaddr: first.instruction.ip(),
            });
        }
    };
    let at = (step.instruction.ip() - start) as usize;
    Ok(ProbeSite {
        function: name.into(),
        vaddr: step.instruction.ip(),
        file_offset: 0,
        bytes: code[at..at + step.instruction.len()].to_vec(),
        cost: if step.emulated {
            SiteCost::Emulated
        } else {
            SiteCost::SingleStepped
        },
        behind_stack_check: step.behind_stack_check,
        may_repeat: repeats(step),
        args: step.args.clone().unwrap_or_default(),
    })
}

struct Step {
    instruction: Instruction,
    emulated: bool,
    refused: bool,
    behind_stack_check: bool,
    /// Where each needed argument is before this instruction; None when one is lost.
    args: Option<Vec<ArgLocation>>,
}

/// The instructions that every call executes, from the entry up to and including the first that branches.
fn straight_line(code: &[u8], start: u64, needed: &[ArgLocation]) -> Vec<Step> {
    let mut homes: Vec<Homes> = needed.iter().map(|at| Homes::on_entry(*at)).collect();
    let mut info = InstructionInfoFactory::new();
    let (mut steps, mut behind, mut checked) = (Vec::new(), false, false);
    for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter() {
        if instruction.is_invalid() || steps.len() > 256 {
            break;
        }
        let at = (instruction.ip() - start) as usize;
        let bytes = &code[at..at + instruction.len()];
        steps.push(Step {
            instruction,
            emulated: is_emulated(bytes),
            refused: is_refused(bytes),
            behind_stack_check: behind,
            args: homes.iter().map(|h| h.first()).collect(),
        });
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::ConditionalBranch if !behind && is_stack_check(&steps, &mut checked) => behind |= checked,
            _ => break,
        }
        for home in &mut homes {
            home.step(&instruction, &mut info);
        }
    }
    steps
}

/// Whether the last of `steps`, a conditional branch, belongs to the stack check: `cmp rsp, [r14+0x10]` (or r12, computed from
/// rsp) then jbe; frames over 4 KB have a jb for wrap-around first (go1.26, cmd/internal/obj/x86/obj6.go, stacksplit).
/// `complete` is set when it is the check's last branch.
fn is_stack_check(steps: &[Step], complete: &mut bool) -> bool {
    let [.., before, branch] = steps else {
        return false;
    };
    let guard = &before.instruction;
    match branch.instruction.mnemonic() {
        Mnemonic::Jbe => {
            *complete = guard.mnemonic() == Mnemonic::Cmp
                && matches!(guard.op0_register(), Register::RSP | Register::R12 | Register::R13)
                && guard.memory_base() == Register::R14
                && matches!(guard.memory_displacement64(), 0x10 | 0x18);
            *complete
        }
        Mnemonic::Jb => guard.mnemonic() == Mnemonic::Sub && guard.op0_register() == Register::R12,
        _ => false,
    }
}

/// Linux, arch/x86/kernel/uprobes.c: push of a 64-bit register, jcc, jmp and call relative, one-byte nop; 16-bit overrides not.
fn is_emulated(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0x50..=0x57]
            | [0x41, 0x50..=0x57]
            | [0x90]
            | [0xe8 | 0xe9, _, _, _, _]
            | [0xeb | 0x70..=0x7f, _]
            | [0x0f, 0x80..=0x8f, _, _, _, _]
    )
}

/// Linux, arch/x86/kernel/uprobes.c, `is_prefix_bad`: lock and the old segment prefixes; and what faults or traps anyway.
fn is_refused(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [
        prefix @ (0x26 | 0x2e | 0x36 | 0x3e | 0xf0 | 0x64 | 0x65 | 0x66 | 0x67 | 0xf2 | 0xf3),
        tail @ ..,
    ] = rest
    {
        if matches!(prefix, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0) {
            return true;
        }
        rest = tail;
    }
    matches!(
        rest,
        [
            0xcc | 0xcd | 0xce | 0xcf | 0xf1 | 0xf4 | 0xfa | 0xfb | 0x6c..=0x6f | 0xe4..=0xe7 | 0xec..=0xef,
            ..,
        ]
    )
}

/// Targets of direct branches within the code, from a linear sweep (which may be wrong behind embedded data: it only warns).
fn branch_targets(code: &[u8], start: u64) -> Vec<u64> {
    Decoder::with_ip(64, code, start, DecoderOptions::NONE)
        .iter()
        .filter(|i| {
            matches!(
                i.flow_control(),
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            )
        })
        .map(|i| i.near_branch_target())
        .collect()
}

#[cfg(test)]
#[path = "x86_tests.rs"]
mod tests;
