//! A uprobe in the midst of a function: on the branch behind a comparison with a number that only that place compares with.
//!
//! It is proved by following every way that leads from the function's first byte: what is found is reached by the program, as
//! instructions that begin where these do.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use super::SiteError;
use super::arch::Arch;
use super::elf::Binary;
use super::site::{Function, ProbeSite, SiteCost, a64, located};

/// Finds the one conditional branch of `function` that follows a comparison with `number`.
pub(crate) fn find(
    binary: &Binary<'_>,
    arch: Arch,
    function: &Function<'_>,
    number: u16,
) -> Result<ProbeSite, SiteError> {
    located(binary, function, |code| {
        place(function.name, arch, code, function.vaddr, number)
    })
}

/// The pure part of [`find`]; the file offset is left 0.
fn place(name: &str, arch: Arch, code: &[u8], start: u64, number: u16) -> Result<ProbeSite, SiteError> {
    let found = match arch {
        Arch::Amd64 => amd64(code, start, number),
        Arch::Arm64 => a64::branches(code, start, number),
    };
    let [(vaddr, length)] = found.as_slice() else {
        return Err(SiteError::NotProved {
            function: name.into(),
            reason: format!("{} branches follow a comparison with {number}, not one", found.len()),
        });
    };
    let at = (vaddr - start) as usize;
    Ok(ProbeSite {
        function: name.into(),
        vaddr: *vaddr,
        file_offset: 0,
        bytes: code[at..at + length].to_vec(),
        // Conditional branches are emulated on both machines.
        cost: SiteCost::Emulated,
        behind_stack_check: true,
        may_repeat: false,
        args: Vec::new(),
    })
}

/// Addresses and lengths of the conditional branches that are reached and follow a comparison with `number`.
fn amd64(code: &[u8], start: u64, number: u16) -> Vec<(u64, usize)> {
    let (mut seen, mut open, mut found) = (BTreeSet::new(), vec![start], Vec::new());
    while let Some(begin) = open.pop() {
        let (mut at, mut compared) = (begin, false);
        while seen.insert(at) {
            let rest = at.checked_sub(start).and_then(|offset| code.get(offset as usize..));
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
                break;
            };
            let i = Decoder::with_ip(64, rest, at, DecoderOptions::NONE).decode();
            if i.is_invalid() {
                break;
            }
            let next = match i.flow_control() {
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => true,
                FlowControl::ConditionalBranch => {
                    if compared {
                        found.push((at, i.len()));
                    }
                    open.push(i.near_branch_target());
                    true
                }
                FlowControl::UnconditionalBranch => {
                    open.push(i.near_branch_target());
                    false
                }
                _ => false,
            };
            if !next {
                break;
            }
            compared = compares(&i, number);
            at = i.next_ip();
        }
    }
    found
}

fn compares(i: &Instruction, number: u16) -> bool {
    i.mnemonic() == Mnemonic::Cmp && i.try_immediate(1).is_ok_and(|with| with == u64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x40_1000;
    /// cmp rcx, 5000; jle +2; nop; nop; ret
    const COMPARED: [u8; 12] = [0x48, 0x81, 0xf9, 0x88, 0x13, 0, 0, 0x7e, 0x02, 0x90, 0x90, 0xc3];

    #[track_caller]
    fn check(arch: Arch, code: &[u8], expected: Result<u64, &str>) {
        let found = place("f", arch, code, START, 5000);
        match (found, expected) {
            (Ok(site), Ok(offset)) => {
                assert_eq!(site.vaddr - START, offset);
                let at = offset as usize;
                assert_eq!(site.bytes, code[at..at + site.bytes.len()]);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn the_branch_behind_the_comparison_is_found_on_the_program_s_way_only() {
        check(Arch::Amd64, &COMPARED, Ok(7));
        // A jump leads over a byte that would take the next instruction's begin into its own.
        check(Arch::Amd64, &[&[0xeb, 0x01, 0xe8], &COMPARED[..]].concat(), Ok(10));
        // Behind the end nobody comes by.
        check(Arch::Amd64, &[&[0xc3], &COMPARED[..]].concat(), Err("0 branches"));
        check(
            Arch::Amd64,
            &[&COMPARED[..11], &COMPARED[..]].concat(),
            Err("2 branches"),
        );
        let mut other = COMPARED;
        other[3] = 0x89;
        check(Arch::Amd64, &other, Err("0 branches"));
        check(Arch::Amd64, &COMPARED[..8], Err("0 branches"));
        check(Arch::Amd64, &[], Err("0 branches"));
    }

    #[test]
    fn on_arm64_the_number_is_in_a_register() {
        let code = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
        // movz x3, #5000; cmp x2, x3; b.le +8; nop; ret
        let compared = [0xd282_7103, 0xeb03_005f, 0x5400_004d, 0xd503_201f, 0xd65f_03c0];
        check(Arch::Arm64, &code(&compared), Ok(8));
        // b +8 over what is no instruction; bl falls through.
        let jump = [&[0x1400_0002, 0xffff_ffff, 0x9400_0001], &compared[..]].concat();
        check(Arch::Arm64, &code(&jump), Ok(20));
        let behind = [&[0xd65f_03c0], &compared[..]].concat();
        check(Arch::Arm64, &code(&behind), Err("0 branches"));
        // Another register, and another number.
        for (at, word) in [(1, 0xeb04_005f), (0, 0xd282_7123)] {
            let mut other = compared;
            other[at] = word;
            check(Arch::Arm64, &code(&other), Err("0 branches"));
        }
        // Between an exclusive load and its store a trap would do harm.
        let exclusive = [&[0xc85f_7c20], &compared[..]].concat();
        check(Arch::Arm64, &code(&exclusive), Err("0 branches"));
    }
}
