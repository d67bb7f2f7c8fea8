//! Stacks of code that runs, as the kernel walks them by frame pointers. A function that has no frame, or has not made it yet, has its
//! caller's frame pointer, so the kernel misses who called it: that is where the function's table of frames says.

use super::{
    stack::Unwinder,
    unwind::{StackPc, Way},
};
use crate::inspect::CodeAt;

/// An address on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodePlace {
    Go(StackPc),
    /// Run-time address of other code: the vDSO's, or C.
    Other(u64),
}

/// Where a thread was.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// Run-time addresses: where it was, and the return addresses behind the frame pointers, innermost first.
    pub addresses: &'a [u64],
    pub sp: u64,
    /// Link register; 0 on amd64.
    pub lr: u64,
    /// What is on the stack from `sp` on.
    pub stack: &'a [u8],
}

impl Unwinder {
    /// The places of a chain, up to the function that the stack began with.
    pub fn places(&mut self, chain: Chain<'_>) -> Vec<CodePlace> {
        let way = self.way;
        places(chain, &way, |vaddr| self.code(vaddr))
    }
}

fn places(chain: Chain<'_>, way: &Way, mut code: impl FnMut(u64) -> Option<CodeAt>) -> Vec<CodePlace> {
    let mut addresses = chain.addresses.to_vec();
    let caller = caller(&chain, way, &mut code);
    if let Some(caller) = caller.filter(|caller| chain.addresses.get(1) != Some(caller)) {
        addresses.insert(1, caller);
    }
    let mut places = Vec::new();
    let mut is_exact = true;
    for address in addresses {
        let vaddr = address.wrapping_sub(way.bias);
        let Some(at) = code(vaddr) else {
            places.push(CodePlace::Other(address));
            is_exact = false;
            continue;
        };
        places.push(CodePlace::Go(StackPc {
            vaddr,
            is_call: !is_exact && vaddr > at.entry,
        }));
        if at.is_top {
            break;
        }
        is_exact = at.is_injected;
    }
    places
}

/// Where the innermost function returns to, as far as its table and what was read of the stack say; None in other code.
fn caller(chain: &Chain<'_>, way: &Way, code: &mut impl FnMut(u64) -> Option<CodeAt>) -> Option<u64> {
    let at = code(chain.addresses.first()?.wrapping_sub(way.bias))?;
    if at.is_top || at.writes_sp {
        return None;
    }
    let caller = match (way.uses_lr, at.frame) {
        (false, frame) => {
            let from = usize::try_from(frame).ok()?;
            u64::from_le_bytes(*chain.stack.get(from..)?.first_chunk()?)
        }
        (true, 0) => chain.lr,
        (true, _) => return None,
    };
    code(caller.wrapping_sub(way.bias)).map(|_| caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIAS: u64 = 0x10_0000;
    /// Functions of 0x100 bytes.
    const A: u64 = 0x1000;
    const B: u64 = 0x1100;
    const LEAF: u64 = 0x1200;
    const GOEXIT: u64 = 0x1300;
    const PREEMPT: u64 = 0x1400;
    const C: u64 = 0x7000_0000;

    fn code(vaddr: u64) -> Option<CodeAt> {
        let entry = vaddr & !0xff;
        let frame = match entry {
            A | B => 0x18,
            LEAF | GOEXIT => 0,
            PREEMPT => 0x30,
            _ => return None,
        };
        Some(CodeAt {
            entry,
            frame: if vaddr == entry { 0 } else { frame },
            is_top: entry == GOEXIT,
            writes_sp: false,
            is_injected: entry == PREEMPT,
        })
    }

    #[track_caller]
    fn check(uses_lr: bool, addresses: &[u64], lr: u64, stack: &[u64], expected: &[(u64, bool)]) {
        let run_time = |vaddr: &u64| vaddr + BIAS;
        let addresses: Vec<u64> = addresses.iter().map(run_time).collect();
        let stack: Vec<u8> = stack.iter().flat_map(|word| run_time(word).to_le_bytes()).collect();
        let chain = Chain {
            addresses: &addresses,
            sp: 0xc000_1000,
            lr: lr + BIAS,
            stack: &stack,
        };
        let way = Way { bias: BIAS, uses_lr };
        let found: Vec<(u64, bool)> = places(chain, &way, code)
            .into_iter()
            .map(|place| match place {
                CodePlace::Go(pc) => (pc.vaddr, pc.is_call),
                CodePlace::Other(address) => (address - BIAS, false),
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_function_without_a_frame_hides_no_caller() {
        let whole = [(LEAF + 4, false), (A + 9, true), (B + 5, true), (GOEXIT + 1, true)];
        // The kernel has A's caller behind the leaf, as the frame pointer is A's.
        check(false, &[LEAF + 4, B + 5, GOEXIT + 1], 0, &[A + 9], &whole);
        check(true, &[LEAF + 4, B + 5, GOEXIT + 1], A + 9, &[], &whole);
        // The same at the first instruction of a function that will have one.
        let prologue = [(B, false), (A + 9, true), (GOEXIT + 1, true)];
        check(false, &[B, GOEXIT + 1], 0, &[A + 9], &prologue);
        // Of one that has its frame the kernel has the caller, and so has the table.
        let framed = [(A + 9, false), (B + 5, true), (GOEXIT + 1, true)];
        check(false, &[A + 9, B + 5, GOEXIT + 1], 0, &[0, 0, 0, B + 5], &framed);
        check(true, &[A + 9, B + 5, GOEXIT + 1], LEAF + 4, &[], &framed);
        // What is on the stack is no code, or was not read.
        let short = [(LEAF + 4, false), (B + 5, true)];
        check(false, &[LEAF + 4, B + 5], 0, &[C], &short);
        check(false, &[LEAF + 4, B + 5], 0, &[], &short);
    }

    #[test]
    fn other_code_is_kept_and_nothing_is_behind_the_first_function() {
        let expected = [(C, false), (A + 9, true), (GOEXIT + 1, true)];
        check(false, &[C, A + 9, GOEXIT + 1, B + 5], 0, &[B + 5], &expected);
        check(false, &[], 0, &[], &[]);
    }

    #[test]
    fn a_signal_comes_between_calls() {
        let stack = [0, 0, 0, 0, 0, 0, A + 9];
        let expected = [(PREEMPT + 7, false), (A + 9, false), (B + 5, true), (GOEXIT + 1, true)];
        check(false, &[PREEMPT + 7, A + 9, B + 5, GOEXIT + 1], 0, &stack, &expected);
    }
}
