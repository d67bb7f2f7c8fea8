//! From a stack's bytes and the registers of a goroutine that does not run to the PCs of its frames, as the runtime itself unwinds it
//! (go1.26, src/runtime/traceback.go, `unwinder`): each function's frame size at a PC is in pclntab. That is right in a function's
//! prologue and in functions without a frame pointer too, such as syscall.Syscall until go1.18, where frame pointers lead astray.

use crate::inspect::CodeAt;

/// Frames of a stack that are kept.
pub(super) const DEEPEST: usize = 128;
/// What a fake call of a signal handler takes on arm64: alignUp(sys.MinFrameSize, sys.StackAlign).
const INJECTED: u64 = 16;

/// A PC of a stack, link-time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackPc {
    pub vaddr: u64,
    /// It is behind a call, which stands in the byte before it.
    pub is_call: bool,
}

impl StackPc {
    /// The address whose functions and line these are.
    pub fn place(self) -> u64 {
        self.vaddr.wrapping_sub(u64::from(self.is_call))
    }
}

/// The frames of a goroutine, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stack {
    pub pcs: Vec<StackPc>,
    /// There are more frames: it is deeper than [`DEEPEST`] or longer than what was read, or its code hides who called it.
    pub is_cut: bool,
}

/// Why a goroutine has no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum NoStack {
    #[error("it runs: what is on its stack changes all the time")]
    Running,
    #[error("it ran, or its stack was moved, while it was read")]
    Moved,
    #[error("a return address is in no function of the executable: in a plugin, or in C")]
    UnknownCode,
    #[error("a frame is not within the bounds of its stack")]
    OutOfBounds,
    #[error("its memory cannot be read")]
    Unreadable,
}

/// Where a goroutine goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    pub pc: u64,
    pub sp: u64,
    /// Link register; 0 on amd64.
    pub lr: u64,
    /// Saved at the begin of a system call.
    pub in_syscall: bool,
}

/// What was read of a stack, from its stack pointer on.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    pub begin: u64,
    pub bytes: &'a [u8],
    /// The end of the stack, which may be behind what was read.
    pub hi: u64,
}

/// How to unwind in one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Run-time less link-time address.
    pub bias: u64,
    /// A call leaves its return address in a register: arm64.
    pub uses_lr: bool,
}

enum Word {
    Is(u64),
    NotRead,
    Outside,
}

impl Read<'_> {
    fn word(&self, at: u64) -> Word {
        let is_within = at.checked_add(8).is_some_and(|end| end <= self.hi);
        let Some(from) = at.checked_sub(self.begin).filter(|_| is_within) else {
            return Word::Outside;
        };
        let word = usize::try_from(from)
            .ok()
            .and_then(|from| self.bytes.get(from..)?.first_chunk());
        word.map_or(Word::NotRead, |word| Word::Is(u64::from_le_bytes(*word)))
    }
}

/// Unwinds a stack; `code` knows the functions by their link-time addresses.
pub(super) fn unwind(
    start: Registers,
    stack: Read<'_>,
    way: &Way,
    mut code: impl FnMut(u64) -> Option<CodeAt>,
) -> Result<Stack, NoStack> {
    let mut found = Stack::default();
    let Registers {
        mut pc, mut sp, mut lr, ..
    } = start;
    let mut is_injected = false;
    if sp < stack.begin || sp > stack.hi {
        return Err(NoStack::OutOfBounds);
    }
    loop {
        let vaddr = pc.wrapping_sub(way.bias);
        let at = code(vaddr).ok_or(NoStack::UnknownCode)?;
        if found.pcs.len() == DEEPEST {
            found.is_cut = true;
            return Ok(found);
        }
        let is_innermost = found.pcs.is_empty();
        found.pcs.push(StackPc {
            vaddr,
            is_call: !is_injected && vaddr > at.entry,
        });
        if at.is_top {
            return Ok(found);
        }
        // System calls write to it only after they have saved where they are.
        if at.writes_sp && !(is_innermost && start.in_syscall) {
            found.is_cut = true;
            return Ok(found);
        }
        let address = if way.uses_lr { 0 } else { 8 };
        let frame_end = sp.checked_add(at.frame).and_then(|end| end.checked_add(address));
        let end = frame_end.filter(|end| *end <= stack.hi).ok_or(NoStack::OutOfBounds)?;
        let saved = match (way.uses_lr, lr) {
            (false, _) => Some(end - address),
            (true, 0) => Some(sp),
            (true, _) => (is_innermost && sp < end).then_some(sp),
        };
        let caller = match saved.map_or(Word::Is(lr), |at| stack.word(at)) {
            Word::Is(caller) => caller,
            Word::Outside => return Err(NoStack::OutOfBounds),
            Word::NotRead => {
                found.is_cut = true;
                return Ok(found);
            }
        };
        (pc, sp, lr) = (caller, end, 0);
        is_injected = at.is_injected;
        if way.uses_lr && is_injected {
            // The signal handler has saved the link register there.
            let Word::Is(linked) = stack.word(sp) else {
                return Err(NoStack::OutOfBounds);
            };
            sp += INJECTED;
            match code(pc.wrapping_sub(way.bias)) {
                None => pc = linked,
                Some(at) if at.frame == 0 => lr = linked,
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "unwind_tests.rs"]
mod tests;
