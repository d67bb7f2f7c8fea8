//! A uprobe in the midst of a function: on the branch behind a comparison with a number that only that place compares with.
//!
//! It is proved by following every way that leads from the function's first byte: what is found is reached by the program, as
//! instructions that begin where these do.

use std::{collections::BTreeSet, ops::Range};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use super::SiteError;
use super::arch::Arch;
use super::elf::Binary;
use super::site::{Function, MAX_FUNCTION, ProbeSite, SiteCost, a64, located};

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

/// Whether the code at `caller` calls the function that begins at `callee`.
pub(crate) fn calls(binary: &Binary<'_>, arch: Arch, caller: &Range<u64>, callee: u64) -> bool {
    let code = binary.read_up_to(caller.start, (caller.end - caller.start).min(MAX_FUNCTION));
    code.is_some_and(|code| has_call(arch, &code, caller.start, callee))
}

/// The pure part of [`calls`], by a linear sweep: what is no instruction would have to be the very call.
fn has_call(arch: Arch, code: &[u8], start: u64, callee: u64) -> bool {
    match arch {
        Arch::Amd64 => Decoder::with_ip(64, code, start, DecoderOptions::NONE)
            .iter()
            .any(|i| i.flow_control() == FlowControl::Call && i.near_branch_target() == callee),
        // bl: six bits, and the distance in words.
        Arch::Arm64 => code.chunks_exact(4).zip(0i64..).any(|(bytes, index)| {
            let word = bytes.try_into().map_or(0, u32::from_le_bytes);
            let distance = i64::from((word << 6).cast_signed() >> 6);
            word >> 26 == 0b10_0101 && start.wrapping_add_signed(4 * (index + distance)) == callee
        }),
    }
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

    #[track_caller]
    fn check_call(arch: Arch, code: &[u8], callee: u64, expected: bool) {
        assert_eq!(has_call(arch, code, START, callee), expected, "{code:x?} {callee:#x}");
    }

    #[test]
    fn a_call_is_known_by_its_target() {
        // nop; call -16; jmp -5
        let code = [0x90, 0xe8, 0xf0, 0xff, 0xff, 0xff, 0xeb, 0xfb];
        check_call(Arch::Amd64, &code, START + 6 - 16, true);
        check_call(Arch::Amd64, &code, START + 6, false);
        // A jump is no call.
        check_call(Arch::Amd64, &code, START + 3, false);
        check_call(Arch::Amd64, &code[..3], START + 6 - 16, false);
        check_call(Arch::Amd64, &[], START, false);
        // nop; bl -8; b -4
        let code: Vec<u8> = [0xd503_201f_u32, 0x97ff_fffe, 0x17ff_ffff]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        check_call(Arch::Arm64, &code, START + 4 - 8, true);
        check_call(Arch::Arm64, &code, START + 4, false);
        check_call(Arch::Arm64, &code[..6], START + 4 - 8, false);
    }

    #[test]
    fn on_arm64_the_number_is_in_a_register_or_in_the_comparison() {
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
        // cmp x2, #16 has the number itself.
        let found = place("f", Arch::Arm64, &code(&[0xf100_405f, 0x5400_004d]), START, 16);
        assert_eq!(found.map(|site| site.vaddr), Ok(START + 4));
        // Between an exclusive load and its store a trap would do harm.
        let exclusive = [&[0xc85f_7c20], &compared[..]].concat();
        check(Arch::Arm64, &code(&exclusive), Err("0 branches"));
    }
}
