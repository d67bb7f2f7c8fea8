//! Stacks of goroutines that do not run, out of memory: no probe, no stop. What a goroutine's g says is read before its stack and
//! after it; where it is not the same, the goroutine ran or its stack was moved, and there is no stack.

use std::{collections::HashMap, fs::File, io};

use super::{
    GoRuntime, Looked,
    unwind::{NoStack, Read, Registers, Stack, Way, unwind},
    walk::{BATCH, Seen, State},
};
use crate::inspect::{Arch, CodeAt, FieldLoc, GoImage, GoSymbolizer};

/// Bytes of a stack that are read: a parked goroutine has some hundred.
const MOST: u64 = 64 << 10;
/// Reads of a goroutine that runs in between: of as many it may be at rest in one.
const TRIES: u32 = 3;
/// PCs whose functions are remembered.
const PLACES: usize = 1 << 16;
/// Entries of allgs that a dump looks at, the dead ones among them.
pub(super) const ENTRIES: u64 = 4_000_000;

/// What finds the functions of a process' stacks, by its executable.
pub struct Unwinder {
    exe: File,
    symbols: GoSymbolizer,
    pub(super) way: Way,
    known: HashMap<u64, Option<CodeAt>>,
    before: Vec<u8>,
    after: Vec<u8>,
    stack: Vec<u8>,
}

/// A goroutine with its stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    pub seen: Seen,
    /// CLOCK_MONOTONIC, ns: since when it waits at the least, as the GC found it; 0 when it did not yet.
    pub since: u64,
    /// goid of the one that made it; since go1.21.
    pub parent: Option<u64>,
    /// Bound to its thread by runtime.LockOSThread.
    pub is_locked: bool,
    pub stack: Result<Stack, NoStack>,
}

/// What a stack depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    goid: u64,
    status: u64,
    /// How often it stopped running so far.
    runs: u64,
    registers: Registers,
    lo: u64,
    hi: u64,
}

impl Unwinder {
    /// For a process that maps the executable `exe`, which is `image`, at `bias`.
    pub fn new(image: &GoImage, exe: File, bias: u64) -> Self {
        Self {
            exe,
            symbols: image.symbols.clone(),
            way: Way {
                bias,
                uses_lr: image.arch == Arch::Arm64,
            },
            known: HashMap::new(),
            before: Vec::new(),
            after: Vec::new(),
            stack: Vec::new(),
        }
    }

    /// What unwinding needs of the code at a link-time address; None where no function is.
    pub(super) fn code(&mut self, vaddr: u64) -> Option<CodeAt> {
        if self.known.len() >= PLACES {
            self.known.clear();
        }
        let (symbols, exe) = (&self.symbols, &self.exe);
        let known = self.known.entry(vaddr);
        *known.or_insert_with(|| symbols.code_at(exe, vaddr))
    }

    fn unwind(&mut self, standing: &Standing) -> Result<Stack, NoStack> {
        let bytes = std::mem::take(&mut self.stack);
        let stack = Read {
            begin: standing.registers.sp,
            bytes: &bytes,
            hi: standing.hi,
        };
        let way = self.way;
        let found = unwind(standing.registers, stack, &way, |vaddr| self.code(vaddr));
        self.stack = bytes;
        found
    }
}

impl GoRuntime {
    /// Shows `each` every goroutine, in the order of allgs, with its stack.
    pub fn stacks(&self, unwinder: &mut Unwinder, mut each: impl FnMut(Goroutine)) -> io::Result<Looked> {
        let entries = self.entries_count()?;
        let mut looked = Looked {
            entries,
            looked_at: entries.min(ENTRIES),
            unread: entries.saturating_sub(ENTRIES),
            ..Looked::default()
        };
        let has_c = self.has_c()?;
        let mut from = 0;
        while from < looked.looked_at {
            let batch = (looked.looked_at - from).min(BATCH);
            match self.entries(self.at(self.globals.allgs), from, batch)? {
                Some(pointers) => {
                    for g in pointers {
                        self.show(g, has_c, unwinder, &mut looked, &mut each);
                    }
                }
                None => looked.unread += batch,
            }
            from += batch;
        }
        Ok(looked)
    }

    pub(super) fn entries_count(&self) -> io::Result<u64> {
        let length = self.memory.word(self.at(self.globals.allgs).wrapping_add(8))?;
        Ok(self.memory.word(self.at(self.globals.allglen))?.min(length))
    }

    fn show(
        &self,
        g: u64,
        has_c: bool,
        unwinder: &mut Unwinder,
        looked: &mut Looked,
        each: &mut impl FnMut(Goroutine),
    ) {
        match self.goroutine(g, has_c, unwinder) {
            Ok(Some(goroutine)) => each(goroutine),
            Ok(None) => {}
            Err(_) => looked.unread += 1,
        }
    }

    /// The goroutine of a g; None of a dead one.
    fn goroutine(&self, g: u64, has_c: bool, unwinder: &mut Unwinder) -> io::Result<Option<Goroutine>> {
        if g == 0 {
            return Ok(None);
        }
        let mut tries = 0;
        loop {
            let found = self.once(g, has_c, unwinder)?;
            tries += 1;
            let is_moved = found.as_ref().is_some_and(|found| found.stack == Err(NoStack::Moved));
            if !is_moved || tries == TRIES {
                return Ok(found);
            }
        }
    }

    /// A goroutine that was seen, with its stack where it is found as it was seen then.
    pub(super) fn with_stack(&self, g: u64, seen: Seen, has_c: bool, unwinder: &mut Unwinder) -> Goroutine {
        let mut reason = NoStack::Running;
        // One that ran may be anywhere by now.
        let tries = if seen.state == State::Running { 0 } else { TRIES };
        for _ in 0..tries {
            reason = NoStack::Moved;
            match self.once(g, has_c, unwinder) {
                Ok(Some(found)) if found.seen == seen && found.stack != Err(NoStack::Moved) => return found,
                Ok(_) => {}
                Err(_) => reason = NoStack::Unreadable,
            }
        }
        Goroutine {
            seen,
            since: 0,
            parent: None,
            is_locked: false,
            stack: Err(reason),
        }
    }

    fn once(&self, g: u64, has_c: bool, unwinder: &mut Unwinder) -> io::Result<Option<Goroutine>> {
        let (size, fields) = (self.stack_extent() as usize, &self.offsets.g);
        for bytes in [&mut unwinder.before, &mut unwinder.after] {
            bytes.resize(size, 0);
        }
        self.memory.read(g, &mut unwinder.before)?;
        let Some((mut seen, m)) = self.seen(&unwinder.before) else {
            return Ok(None);
        };
        if has_c && seen.state == State::Syscall && self.is_in_c(g, m) {
            seen.state = State::Cgo;
        }
        let word = |field: &FieldLoc| word(&unwinder.before, field);
        let since = word(&fields.waitsince);
        let parent = fields.parent_goid.as_ref().map(word);
        let is_locked = word(&fields.lockedm) != 0;
        let standing = self.standing(&unwinder.before);
        let stack = match seen.state {
            State::Running => Err(NoStack::Running),
            _ => self.stack(g, &standing, unwinder),
        };
        Ok(Some(Goroutine {
            seen,
            since,
            parent,
            is_locked,
            stack,
        }))
    }

    fn stack(&self, g: u64, standing: &Standing, unwinder: &mut Unwinder) -> Result<Stack, NoStack> {
        let sp = standing.registers.sp;
        let is_within = standing.lo < sp && sp <= standing.hi;
        // Of one that runs meanwhile, what is read may be anything: whether it did is known afterwards.
        let length = if is_within { (standing.hi - sp).min(MOST) } else { 0 };
        unwinder.stack.resize(length as usize, 0);
        let read = self.memory.read(sp, &mut unwinder.stack);
        self.memory
            .read(g, &mut unwinder.after)
            .map_err(|_| NoStack::Unreadable)?;
        if self.standing(&unwinder.after) != *standing {
            return Err(NoStack::Moved);
        }
        if !is_within {
            return Err(NoStack::OutOfBounds);
        }
        read.map_err(|_| NoStack::Unreadable)?;
        unwinder.unwind(standing)
    }

    fn standing(&self, g: &[u8]) -> Standing {
        const SCAN: u64 = 0x1000;
        let fields = &self.offsets.g;
        let word = |field: &FieldLoc| word(g, field);
        let in_syscall = word(&fields.syscallsp) != 0;
        let registers = if in_syscall {
            Registers {
                pc: word(&fields.syscallpc),
                sp: word(&fields.syscallsp),
                lr: 0,
                in_syscall,
            }
        } else {
            Registers {
                pc: word(&fields.sched_pc),
                sp: word(&fields.sched_sp),
                lr: word(&fields.sched_lr),
                in_syscall,
            }
        };
        Standing {
            goid: word(&fields.goid),
            status: word(&fields.atomicstatus) & 0xffff_ffff & !SCAN,
            runs: word(&fields.tracking_seq),
            registers,
            lo: word(&fields.stack_lo),
            hi: word(&fields.stack_hi),
        }
    }

    /// Bytes of a g from its begin to the last field that is read for its stack.
    fn stack_extent(&self) -> u64 {
        let g = &self.offsets.g;
        let needed = [
            &g.waitsince,
            &g.lockedm,
            &g.syscallsp,
            &g.syscallpc,
            &g.sched_pc,
            &g.sched_sp,
            &g.sched_lr,
            &g.tracking_seq,
            &g.stack_lo,
            &g.stack_hi,
        ];
        let fields = needed.into_iter().chain(&g.parent_goid);
        let ends = fields.map(|field| field.offset + field.size.min(8));
        ends.max().unwrap_or(0).max(self.extent())
    }
}

/// A field of a g; 0 where it is not among the bytes.
fn word(g: &[u8], field: &FieldLoc) -> u64 {
    let mut word = [0; 8];
    let size = field.size.min(8) as usize;
    let found = g.get(field.offset as usize..).and_then(|rest| rest.get(..size));
    word[..size].copy_from_slice(found.unwrap_or(&[0; 8][..size]));
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goroutine_that_ran_or_moved_is_told_from_one_that_stood_still() {
        let registers = Registers {
            pc: 0x40_1000,
            sp: 0xc000_0800,
            lr: 0,
            in_syscall: false,
        };
        let before = Standing {
            goid: 7,
            status: 4,
            runs: 3,
            registers,
            lo: 0xc000_0000,
            hi: 0xc000_1000,
        };
        let of = |change: fn(&mut Standing)| {
            let mut after = before;
            change(&mut after);
            after
        };
        for after in [
            of(|after| after.goid = 9),
            of(|after| after.status = 1),
            // It is where it was, and has been elsewhere.
            of(|after| after.runs = 4),
            of(|after| after.registers.pc += 1),
            of(|after| after.registers.sp -= 64),
            of(|after| after.registers.in_syscall = true),
            // Its stack was moved.
            of(|after| (after.lo, after.hi) = (0xc100_0000, 0xc100_1000)),
        ] {
            assert_ne!(after, before);
        }
        assert_eq!(of(|_| ()), before);
    }
}
