//! A walk over every goroutine of a process: runtime.allgs (go1.26, runtime/proc.go), which only grows; a g is used again when
//! its goroutine is over.

use std::io;

use super::GoRuntime;
use crate::realtime;

/// Goroutines alive that a walk takes note of, at most: what is kept of each is some 40 bytes.
pub const MOST: usize = 100_000;
/// Entries of allgs that a walk looks at, at most, the dead ones among them: some 450 MB of the target's memory.
const ENTRIES: u64 = 1_000_000;
/// Entries that are read at once.
pub(super) const BATCH: u64 = 8192;
/// allgs moves when it grows; of as many tries one meets no move.
const TRIES: u32 = 8;
/// Gs that lie nearer to each other than this are read at once, bytes; the allocator puts them side by side.
const NEAR: u64 = 2048;
/// Bytes read at once, at most.
const STRETCH: u64 = 64 << 10;

/// What a goroutine does (go1.26, runtime/runtime2.go, _Gidle and its like).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Runnable,
    Running,
    Syscall,
    /// In a call into C: a system call for the runtime.
    Cgo,
    Waiting,
    /// It stopped itself for a stack scan, or its stack is being moved.
    Preempted,
    /// The GC found that nobody can ever wake it; go1.26 and later, when asked for a goroutineleak profile.
    Leaked,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Syscall => "syscall",
            Self::Cgo => "cgo",
            Self::Waiting => "waiting",
            Self::Preempted => "preempted",
            Self::Leaked => "leaked",
        }
    }

    /// None for a g that is nobody's: being made (0), dead (6, 11), or of a status that is not known.
    fn of(status: u64) -> Option<Self> {
        const SCAN: u64 = 0x1000;
        Some(match status & !SCAN {
            1 => Self::Runnable,
            2 => Self::Running,
            3 => Self::Syscall,
            4 => Self::Waiting,
            8 | 9 => Self::Preempted,
            10 => Self::Leaked,
            _ => return None,
        })
    }
}

/// A goroutine, as a walk saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub goid: u64,
    /// Entry of the function it was started with, run-time address.
    pub startpc: u64,
    /// PC of the go statement that created it, run-time address.
    pub gopc: u64,
    pub state: State,
    /// Why it waits: a runtime.waitReason. Only with [`State::Waiting`].
    pub reason: u32,
}

/// What a walk saw. It is no instant: goroutines go on meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    pub goroutines: Vec<Seen>,
    /// Gs that were not looked at: behind the last of [`ENTRIES`], not to be read, or alive and behind the last of [`MOST`].
    pub left_out: u64,
}

impl GoRuntime {
    /// Looks at every goroutine, the runtime's own among them. The dead, of which a burst leaves a long table, cost a reading
    /// each and nothing more.
    pub fn walk(&self) -> io::Result<Walk> {
        let (allgs, allglen) = (self.at(self.globals.allgs), self.at(self.globals.allglen));
        let length = self.memory.word(allglen)?.min(self.memory.word(allgs.wrapping_add(8))?);
        let looked_at = length.min(ENTRIES);
        let mut walk = Walk {
            goroutines: Vec::new(),
            left_out: length - looked_at,
        };
        let has_c = self.has_c()?;
        let mut bytes = Vec::new();
        let mut from = 0;
        while from < looked_at {
            let batch = (looked_at - from).min(BATCH);
            match self.entries(allgs, from, batch)? {
                Some(pointers) => self.look(pointers, has_c, &mut bytes, &mut walk),
                None => walk.left_out += batch,
            }
            from += batch;
        }
        Ok(walk)
    }

    /// The entries of allgs from `from` on. The array may be replaced by a longer one while it is read, and the old one's memory
    /// be used for other things; None when it was at each try.
    pub(super) fn entries(&self, allgs: u64, from: u64, count: u64) -> io::Result<Option<Vec<u64>>> {
        for _ in 0..TRIES {
            let array = self.memory.word(allgs)?;
            let entries = self.memory.words(array.wrapping_add(from * 8), count as usize);
            if self.memory.word(allgs)? == array {
                return entries.map(Some);
            }
        }
        Ok(None)
    }

    /// Some entries of allgs, in the same way.
    pub(super) fn picked(&self, allgs: u64, picked: &[u64]) -> io::Result<Option<Vec<u64>>> {
        for _ in 0..TRIES {
            let array = self.memory.word(allgs)?;
            let read = |at: &u64| {
                realtime::check();
                self.memory.word(array.wrapping_add(at * 8))
            };
            let entries: io::Result<Vec<u64>> = picked.iter().map(read).collect();
            if self.memory.word(allgs)? == array {
                return entries.map(Some);
            }
        }
        Ok(None)
    }

    /// Looks at some goroutines; `bytes` is room to read them into.
    pub(super) fn look(&self, pointers: Vec<u64>, has_c: bool, bytes: &mut Vec<u8>, walk: &mut Walk) {
        self.each(pointers, has_c, bytes, |_, seen| match seen {
            Some(seen) if walk.goroutines.len() < MOST => walk.goroutines.push(seen),
            _ => walk.left_out += 1,
        });
    }

    /// Shows `each` the goroutines of some gs; None of a g that cannot be read.
    pub(super) fn each(
        &self,
        mut pointers: Vec<u64>,
        has_c: bool,
        bytes: &mut Vec<u8>,
        mut each: impl FnMut(u64, Option<Seen>),
    ) {
        pointers.retain(|pointer| *pointer != 0);
        pointers.sort_unstable();
        let size = self.extent();
        for run in runs(&pointers, size) {
            realtime::check();
            let begin = run[0];
            bytes.resize((run[run.len() - 1] - begin + size) as usize, 0);
            if self.memory.read(begin, bytes).is_err() {
                run.iter().for_each(|g| each(*g, None));
                continue;
            }
            for g in run {
                let Some((mut seen, m)) = self.seen(&bytes[(g - begin) as usize..]) else {
                    continue;
                };
                if has_c && seen.state == State::Syscall && self.is_in_c(*g, m) {
                    seen.state = State::Cgo;
                }
                each(*g, Some(seen));
            }
        }
    }

    /// Bytes of a g from its begin to the last field that is read.
    pub(super) fn extent(&self) -> u64 {
        let g = &self.offsets.g;
        let fields = [&g.goid, &g.gopc, &g.startpc, &g.waitreason, &g.atomicstatus, &g.m];
        fields
            .map(|field| field.offset + field.size.min(8))
            .into_iter()
            .max()
            .unwrap_or(0)
    }

    /// A goroutine, and the M that it runs on.
    pub(super) fn seen(&self, g: &[u8]) -> Option<(Seen, u64)> {
        let offsets = &self.offsets.g;
        let word = |field: &crate::inspect::FieldLoc| {
            let mut word = [0; 8];
            let size = field.size.min(8) as usize;
            word[..size].copy_from_slice(g.get(field.offset as usize..)?.get(..size)?);
            Some(u64::from_le_bytes(word))
        };
        let state = State::of(word(&offsets.atomicstatus)? & 0xffff_ffff)?;
        let reason = match state {
            State::Waiting => word(&offsets.waitreason)? as u32,
            _ => 0,
        };
        let seen = Seen {
            goid: word(&offsets.goid)?,
            startpc: word(&offsets.startpc)?,
            gopc: word(&offsets.gopc)?,
            state,
            reason,
        };
        Some((seen, word(&offsets.m)?))
    }
}

/// Addresses in order, cut where the next is far away or the stretch is long.
fn runs(addresses: &[u64], size: u64) -> impl Iterator<Item = &[u64]> {
    let mut rest = addresses;
    std::iter::from_fn(move || {
        let begin = *rest.first()?;
        let near = |pair: &[u64]| pair[1] - pair[0] <= NEAR && (pair[1] - begin).saturating_add(size) <= STRETCH;
        let length = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (run, after) = rest.split_at(length);
        rest = after;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_together_is_read_together() {
        let check = |addresses: &[u64], expected: &[usize]| {
            let found: Vec<usize> = runs(addresses, 400).map(<[u64]>::len).collect();
            assert_eq!(found, expected, "{addresses:?}");
        };
        check(&[], &[]);
        check(&[0x1000], &[1]);
        check(&[0x1000, 0x11c0, 0x1380, 0x9000, 0x91c0], &[3, 2]);
        // No stretch is longer than it may be, and nothing is left out.
        let many: Vec<u64> = (0..1000).map(|number| 0xc000_0000 + number * 448).collect();
        let lengths: Vec<usize> = runs(&many, 400).map(<[u64]>::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 1000);
        assert!(lengths.iter().all(|length| (*length as u64 - 1) * 448 + 400 <= STRETCH));
    }

    #[test]
    fn only_living_goroutines_have_a_state() {
        for (status, expected) in [
            (0, None),
            (1, Some(State::Runnable)),
            (0x1002, Some(State::Running)),
            (4, Some(State::Waiting)),
            (6, None),
            (0x100a, Some(State::Leaked)),
            (11, None),
            (77, None),
        ] {
            assert_eq!(State::of(status), expected, "{status:#x}");
        }
    }
}
