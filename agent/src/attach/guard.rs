//! Keeps a program on its CPU from its first instruction to its last (why: `kernel/preemption.rs`).
//!
//! The program becomes a subprogram of a few instructions that the kernel runs in its place: preemption off, the program,
//! preemption on. The verifier refuses an exit while preemption is off, which is why its own exits have to lie in a subprogram.
//! Nothing of the stack is used before preemption is off. Raw instructions, since neither rustc nor aya make calls of kernel
//! functions.

use crate::kernel::Kfuncs;

/// struct bpf_insn's opcodes (Linux, include/uapi/linux/bpf.h): BPF_ALU64 | BPF_MOV | BPF_X; BPF_JMP | BPF_CALL; BPF_JMP | BPF_EXIT.
const MOVE: u8 = 0xbf;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// What a call's source register says of its immediate: a distance in instructions, or a BTF id.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_KFUNC_CALL: u8 = 2;
/// Kept by whoever is called.
const KEPT: u8 = 6;
/// Of the instructions that are put in front.
const CALLS_PROGRAM: usize = 3;
const LENGTH: usize = 8;

type Instruction = [u8; 8];

/// `program` with preemption off while it runs; its argument and result stay what they are.
pub(super) fn wrap(kfuncs: Kfuncs, program: &[Instruction]) -> Vec<Instruction> {
    let front: [Instruction; LENGTH] = [
        moved(KEPT, 1),
        called(PSEUDO_KFUNC_CALL, kfuncs.disable),
        moved(1, KEPT),
        // From the instruction after this one to the program's first.
        called(PSEUDO_CALL, (LENGTH - CALLS_PROGRAM - 1) as u32),
        moved(KEPT, 0),
        called(PSEUDO_KFUNC_CALL, kfuncs.enable),
        moved(0, KEPT),
        [EXIT, 0, 0, 0, 0, 0, 0, 0],
    ];
    [&front, program].concat()
}

/// `to` = `from`.
fn moved(to: u8, from: u8) -> Instruction {
    [MOVE, to | from << 4, 0, 0, 0, 0, 0, 0]
}

fn called(kind: u8, what: u32) -> Instruction {
    let [a, b, c, d] = what.to_le_bytes();
    [CALL, kind << 4, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `llvm-objdump` prints them.
    #[test]
    fn a_program_runs_between_two_calls() {
        let program = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [EXIT, 0, 0, 0, 0, 0, 0, 0]];
        let kfuncs = Kfuncs {
            disable: 0x1_2345,
            enable: 0x678,
        };
        let expected = [
            // r6 = r1
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            // call kfunc bpf_preempt_disable
            [0x85, 0x20, 0, 0, 0x45, 0x23, 0x01, 0],
            // r1 = r6
            [0xbf, 0x61, 0, 0, 0, 0, 0, 0],
            // call +4: the program
            [0x85, 0x10, 0, 0, 4, 0, 0, 0],
            // r6 = r0
            [0xbf, 0x06, 0, 0, 0, 0, 0, 0],
            // call kfunc bpf_preempt_enable
            [0x85, 0x20, 0, 0, 0x78, 0x06, 0, 0],
            // r0 = r6; exit
            [0xbf, 0x60, 0, 0, 0, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
            program[0],
            program[1],
        ];
        assert_eq!(wrap(kfuncs, &program), expected);
    }
}
