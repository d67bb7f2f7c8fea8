//! Calls into C (cgo): how many, as the runtime counts them (go1.26, runtime/debug.go, NumCgoCall), and which goroutines are in one
//! (runtime/cgocall.go, cgocall).

use std::io;

use super::{GoRuntime, ProofError};

/// A thread that comes or goes spoils a count; of as many in a row not all are.
const TRIES: u32 = 4;
/// Ms that are looked at: where there are more, there is no count.
const MOST: u64 = 4096;

impl GoRuntime {
    /// Whether C is linked in.
    pub(super) fn has_c(&self) -> io::Result<bool> {
        Ok(self.memory.unsigned(self.at(self.globals.iscgo), 1)? != 0)
    }

    /// Calls since the start. None without cgo, and where threads came or went at each try.
    ///
    /// An M that ends leaves allm, then adds its calls to ncgocall, and then is counted in nmfreed (runtime/proc.go, mexit): while
    /// as many Ms are on the list as there are by that count, before and after, no call is missed and none counted twice.
    pub(super) fn c_calls(&self) -> io::Result<Option<u64>> {
        if !self.has_c()? {
            return Ok(None);
        }
        let (globals, m) = (&self.globals, &self.offsets.m);
        let (Some(allm), Some(of_ended), Some(link), Some(of_m)) =
            (globals.allm, globals.c_calls, &m.alllink, &m.ncgocall)
        else {
            return Ok(None);
        };
        // Calls, and the Ms on allm.
        let counted = || -> io::Result<(u64, u64)> {
            let mut calls = self.memory.word(self.at(of_ended))?;
            let mut ms = 0;
            let mut next = self.memory.word(self.at(allm))?;
            while next != 0 && ms < MOST {
                calls = calls.wrapping_add(self.memory.word(next.wrapping_add(of_m.offset))?);
                ms += 1;
                next = self.memory.word(next.wrapping_add(link.offset))?;
            }
            Ok((calls, ms))
        };
        for _ in 0..TRIES {
            let before = self.threads()?;
            // An M that has ended may be anything by now, and its link lead anywhere.
            let counted = counted();
            let (Some(before), Some(after)) = (before, self.threads()?) else {
                return Ok(None);
            };
            if let Ok((calls, ms)) = counted
                && ms == before.created.saturating_sub(before.ended)
                && before.are_those_of(&after)
            {
                return Ok(Some(calls));
            }
        }
        Ok(None)
    }

    /// While no thread has ended, none has left calls behind.
    pub(super) fn prove_c(&self) -> Result<(), ProofError> {
        let (Some(threads), Some(of_ended)) = (self.threads()?, self.globals.c_calls) else {
            return Ok(());
        };
        match self.memory.word(self.at(of_ended))? {
            calls if calls > 0 && threads.ended == 0 => Err(ProofError::Refuted(format!(
                "{calls} calls into C by threads that ended, and none has"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the goroutine `g`, which seemed to be in a system call on `m`, is in C.
    pub(super) fn is_in_c(&self, g: u64, m: u64) -> bool {
        let fields = &self.offsets.m;
        let Some(flag) = &fields.incgo else { return false };
        let read = |offset: u64, size| self.memory.unsigned(m.wrapping_add(offset), size);
        m != 0
            && read(flag.offset, 1).is_ok_and(|flag| flag == 1)
            && read(fields.curg.offset, 8).is_ok_and(|curg| curg == g)
    }
}
