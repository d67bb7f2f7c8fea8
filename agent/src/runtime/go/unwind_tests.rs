//! The walk over written stacks: right ones, and such as no goroutine has.

use super::*;

const BIAS: u64 = 0x10_0000;
/// Where the stack begins that the tests write, its end, and the least address of its memory.
const SP: u64 = 0xc000_1000;
const HI: u64 = 0xc000_1100;

/// Functions of 0x100 bytes: a has a frame of 0x18 bytes, b of 0x28, leaf of none; then goexit, one that writes to SP, asyncPreempt.
const A: u64 = 0x1000;
const B: u64 = 0x1100;
const LEAF: u64 = 0x1200;
const GOEXIT: u64 = 0x1300;
const SWITCH: u64 = 0x1400;
const PREEMPT: u64 = 0x1500;

fn code(vaddr: u64) -> Option<CodeAt> {
    let entry = vaddr & !0xff;
    let of_frame = |frame| CodeAt {
        entry,
        // Nothing is there yet at the first instruction.
        frame: if vaddr == entry { 0 } else { frame },
        is_top: entry == GOEXIT,
        writes_sp: entry == SWITCH,
        is_injected: entry == PREEMPT,
    };
    Some(of_frame(match entry {
        A => 0x18,
        B => 0x28,
        LEAF | GOEXIT | SWITCH => 0,
        PREEMPT => 0x30,
        _ => return None,
    }))
}

/// Words of a stack by their distance from [`SP`]; addresses of code are link-time.
fn written(words: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; (HI - SP) as usize];
    for (at, word) in words {
        let at = *at as usize;
        bytes[at..at + 8].copy_from_slice(&(word + BIAS).to_le_bytes());
    }
    bytes
}

fn registers(pc: u64) -> Registers {
    Registers {
        pc: pc + BIAS,
        sp: SP,
        lr: 0,
        in_syscall: false,
    }
}

#[track_caller]
fn check(uses_lr: bool, start: Registers, words: &[(u64, u64)], expected: Result<(&[u64], bool), NoStack>) {
    let bytes = written(words);
    let stack = Read {
        begin: SP,
        bytes: &bytes,
        hi: HI,
    };
    let found = unwind(start, stack, &Way { bias: BIAS, uses_lr }, code);
    let expected = expected.map(|(pcs, is_cut)| (pcs.to_vec(), is_cut));
    let found = found.map(|stack| {
        let places: Vec<u64> = stack.pcs.iter().map(|pc| pc.place()).collect();
        (places, stack.is_cut)
    });
    assert_eq!(found, expected, "{words:x?}");
}

#[test]
fn on_amd64_return_addresses_are_behind_frames() {
    let words = [(0x18, B + 0x20), (0x48, GOEXIT + 1)];
    let expected = [A + 0xf, B + 0x1f, GOEXIT];
    check(false, registers(A + 0x10), &words, Ok((&expected, false)));
    // In a prologue, and one that has not run yet.
    let words = [(0, B + 0x20), (0x30, GOEXIT + 1)];
    check(false, registers(A), &words, Ok((&[A, B + 0x1f, GOEXIT], false)));
    // A function without a frame that calls.
    check(
        false,
        registers(LEAF + 9),
        &words,
        Ok((&[LEAF + 8, B + 0x1f, GOEXIT], false)),
    );
    // A signal's: what is above is not behind a call.
    let words = [(0x30, B + 0x20), (0x60, GOEXIT + 1)];
    check(
        false,
        registers(PREEMPT + 4),
        &words,
        Ok((&[PREEMPT + 3, B + 0x20, GOEXIT], false)),
    );
}

#[test]
fn on_arm64_return_addresses_are_at_the_stack_pointer() {
    let words = [(0, B + 0x20), (0x18, GOEXIT + 4)];
    check(
        true,
        registers(A + 0x10),
        &words,
        Ok((&[A + 0xf, B + 0x1f, GOEXIT + 3], false)),
    );
    // Without a frame yet, it is in the register.
    let start = Registers {
        lr: B + 0x20 + BIAS,
        ..registers(A)
    };
    check(true, start, &[(0, GOEXIT + 4)], Ok((&[A, B + 0x1f, GOEXIT + 3], false)));
    // Behind a frame that a signal made.
    let words = [(0, B + 0x20), (0x30, A + 8), (0x40, GOEXIT + 4)];
    let expected = [PREEMPT + 3, B + 0x20, GOEXIT + 3];
    check(true, registers(PREEMPT + 4), &words, Ok((&expected, false)));
}

#[test]
fn what_no_stack_is_has_no_frames() {
    let whole = [(0x18, B + 0x20), (0x48, GOEXIT + 1)];
    let at = |sp: u64| Registers {
        sp,
        ..registers(A + 0x10)
    };
    // A stack pointer of another stack, below and above; a frame that reaches beyond the end.
    for sp in [SP - 8, HI + 8, 0, u64::MAX, HI, HI - 8, HI - 0x18] {
        check(false, at(sp), &whole, Err(NoStack::OutOfBounds));
    }
    // The PC, or a return address, is in no function: of a stack that was moved, or used for something else.
    check(false, registers(0x9000), &whole, Err(NoStack::UnknownCode));
    check(false, registers(A + 0x10), &[], Err(NoStack::UnknownCode));
    check(
        false,
        registers(A + 0x10),
        &[(0x18, 0x77_0000)],
        Err(NoStack::UnknownCode),
    );
    check(true, registers(A + 0x10), &[(0, 0x77_0000)], Err(NoStack::UnknownCode));
    // No function is the last one.
    check(
        false,
        registers(A + 0x10),
        &[(0x18, SWITCH + 1)],
        Ok((&[A + 0xf, SWITCH], true)),
    );
}

#[test]
fn what_was_not_read_is_cut() {
    let bytes = written(&[(0x18, B + 0x20), (0x48, GOEXIT + 1)]);
    for (length, pcs, is_cut) in [
        (0x50, 3, false),
        (0x4f, 2, true),
        (0x20, 2, true),
        (0x18, 1, true),
        (0, 1, true),
    ] {
        let stack = Read {
            begin: SP,
            bytes: &bytes[..length],
            hi: HI,
        };
        let way = Way {
            bias: BIAS,
            uses_lr: false,
        };
        let found = unwind(registers(A + 0x10), stack, &way, code).unwrap();
        assert_eq!((found.pcs.len(), found.is_cut), (pcs, is_cut), "{length:#x}");
    }
}

#[test]
fn a_deep_stack_is_cut() {
    let deep: Vec<u8> = (LEAF + 1 + BIAS).to_le_bytes().repeat(DEEPEST + 10);
    for uses_lr in [false, true] {
        let stack = Read {
            begin: SP,
            bytes: &deep,
            hi: SP + deep.len() as u64,
        };
        let found = unwind(registers(LEAF + 1), stack, &Way { bias: BIAS, uses_lr }, code).unwrap();
        assert_eq!((found.pcs.len(), found.is_cut), (DEEPEST, true));
    }
}

#[test]
fn a_system_call_may_write_to_the_stack_pointer() {
    let start = Registers {
        in_syscall: true,
        ..registers(SWITCH + 1)
    };
    let words = [(0, B + 0x20), (0x30, GOEXIT + 1)];
    check(false, start, &words, Ok((&[SWITCH, B + 0x1f, GOEXIT], false)));
    check(false, registers(SWITCH + 1), &words, Ok((&[SWITCH], true)));
}
