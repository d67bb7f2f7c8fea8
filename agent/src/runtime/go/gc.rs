//! What the GC does besides its cycles: the limit of its CPU time, sweeping, and giving memory back.

use std::io;

use super::{GoRuntime, ProofError, bounded};
use crate::inspect::FieldLoc;

/// A reading; what the version has not got is None.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Between {
    pub limiter: Option<Limiter>,
    pub sweep: Option<Sweep>,
    /// Retained heap, and mapped memory, above which the scavenger gives memory back, bytes: by GOGC, and by GOMEMLIMIT. None
    /// where it has nothing to do for that; since go1.19.
    pub scavenge_goals: Option<[Option<u64>; 2]>,
    /// Bytes that the scavenger gave back: in the background, and eagerly, while memory was allocated; since go1.21.
    pub scavenged: Option<[u64; 2]>,
}

/// runtime.gcCPULimiter, which keeps assists and idle workers back when the GC takes half of the CPU (go1.19, runtime/mgclimit.go).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limiter {
    pub enabled: bool,
    /// The cycle in which it was on last; 0 if it never was.
    pub last_cycle: u64,
}

/// Proportional sweep, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// What the next allocation of a span has to sweep first.
    pub debt: u64,
    /// In use and not swept in this cycle, as gcPaceSweeper reckons it.
    pub left: u64,
}

/// runtime.pageSize (go1.18 to go1.27, runtime/sizeclasses.go, _PageShift 13).
const PAGE: u64 = 1 << 13;
/// More pages than any address space has.
const MAX_PAGES: u64 = 1 << 35;
/// Of sweep.active.state: no span is left (go1.26, runtime/mgcsweep.go, sweepDrainedMask).
const DRAINED: u64 = 1 << 31;
/// More sweepers than there can be at once.
const MAX_SWEEPERS: u64 = 1 << 24;

/// What sweeping is reckoned from: counts of pages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    in_use: u64,
    swept: u64,
    swept_basis: u64,
    live: u64,
    live_basis: u64,
    pages_per_byte: f64,
    state: u64,
}

impl Pace {
    /// As deductSweepCredit and gcPaceSweeper (go1.26, runtime/mgcsweep.go). Once all is swept they find out only when they look for
    /// more: the sweeper's state knows.
    fn sweep(self) -> Sweep {
        if self.state & DRAINED != 0 {
            return Sweep::default();
        }
        let target = self.pages_per_byte * self.live.saturating_sub(self.live_basis) as f64;
        let done = self.swept.wrapping_sub(self.swept_basis) as i64;
        let left = self.in_use.saturating_sub(self.swept);
        let debt = (target as i64).saturating_sub(done).max(0) as u64;
        Sweep {
            debt: debt.min(left) * PAGE,
            left: left * PAGE,
        }
    }

    fn is_plausible(self) -> bool {
        self.in_use < MAX_PAGES
            && self.swept < MAX_PAGES
            && self.pages_per_byte.is_finite()
            && self.pages_per_byte >= 0.0
            && self.state & !DRAINED < MAX_SWEEPERS
    }
}

impl GoRuntime {
    pub(super) fn between(&self) -> io::Result<Between> {
        let (globals, offsets) = (&self.globals, &self.offsets);
        let goals = &offsets.scavenge;
        let heap = &offsets.heap;
        let both = |global: Option<u64>, fields: [Option<FieldLoc>; 2]| -> io::Result<Option<[u64; 2]>> {
            let [first, second] = fields;
            Ok(self
                .maybe(global, first)?
                .zip(self.maybe(global, second)?)
                .map(Into::into))
        };
        let goals = both(globals.scavenge, [goals.gc_percent_goal, goals.memory_limit_goal])?;
        Ok(Between {
            limiter: self.limiter()?,
            sweep: self.pace()?.map(Pace::sweep),
            scavenge_goals: goals.map(|goals| goals.map(bounded)),
            scavenged: both(globals.heap, [heap.released_background, heap.released_eager])?,
        })
    }

    /// Holds the variables against what they can be in any live process.
    pub(super) fn prove_between(&self) -> Result<(), ProofError> {
        let refuted = |what: String| Err(ProofError::Refuted(what));
        let (globals, fields) = (&self.globals, &self.offsets.limiter);
        if let Some(flag) = self.maybe(globals.limiter, fields.enabled)?
            && flag > 1
        {
            return refuted(format!("gcCPULimiter.enabled is {flag}"));
        }
        let begun = self.field(globals.work, &self.offsets.work.cycles)?;
        if let Some(cycle) = self.maybe(globals.limiter, fields.last_enabled_cycle)?
            && cycle > begun + 1
        {
            return refuted(format!("the GC's limiter was on in cycle {cycle} of {begun}"));
        }
        match self.pace()? {
            Some(pace) if !pace.is_plausible() => refuted(format!("the sweeper is at {pace:?}")),
            _ => Ok(()),
        }
    }

    fn limiter(&self) -> io::Result<Option<Limiter>> {
        let (global, fields) = (self.globals.limiter, &self.offsets.limiter);
        let enabled = self.maybe(global, fields.enabled)?;
        let last_cycle = self.maybe(global, fields.last_enabled_cycle)?;
        Ok(enabled.zip(last_cycle).map(|(enabled, last_cycle)| Limiter {
            enabled: enabled != 0,
            last_cycle,
        }))
    }

    fn pace(&self) -> io::Result<Option<Pace>> {
        let (globals, heap) = (&self.globals, &self.offsets.heap);
        let fields = [
            heap.pages_in_use,
            heap.pages_swept,
            heap.pages_swept_basis,
            heap.sweep_heap_live_basis,
            heap.sweep_pages_per_byte,
        ];
        let mut found = [0; 5];
        for (value, field) in found.iter_mut().zip(fields) {
            let Some(read) = self.maybe(globals.heap, field)? else {
                return Ok(None);
            };
            *value = read;
        }
        let [in_use, swept, swept_basis, live_basis, pages_per_byte] = found;
        let state = self.maybe(globals.sweep, self.offsets.sweep.active_state)?;
        let live = self.field(globals.gc_controller, &self.offsets.gc_controller.heap_live)?;
        Ok(state.map(|state| Pace {
            in_use,
            swept,
            swept_basis,
            live,
            live_basis,
            pages_per_byte: f64::from_bits(pages_per_byte),
            state,
        }))
    }

    /// A field that the version, or the binary, may not have.
    fn maybe(&self, global: Option<u64>, field: Option<FieldLoc>) -> io::Result<Option<u64>> {
        let both = global.zip(field);
        both.map(|(global, field)| self.field(global, &field)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pace: Pace, debt: u64, left: u64) {
        let expected = Sweep {
            debt: debt * PAGE,
            left: left * PAGE,
        };
        assert_eq!(pace.sweep(), expected, "{pace:?}");
    }

    #[test]
    fn sweep_debt_is_how_far_it_is_below_its_line() {
        // 100 pages to sweep while 1000 bytes are allocated.
        let pace = Pace {
            in_use: 120,
            swept: 20,
            swept_basis: 20,
            live: 5000,
            live_basis: 5000,
            pages_per_byte: 0.1,
            state: 0,
        };
        check(pace, 0, 100);
        check(Pace { live: 5500, ..pace }, 50, 100);
        let swept = Pace {
            live: 5500,
            swept: 60,
            ..pace
        };
        check(swept, 10, 60);
        check(Pace { swept: 90, ..swept }, 0, 30);
        // A live heap below the line's begin is none of it.
        check(Pace { live: 4000, ..pace }, 0, 100);
        // More is never owed than is left, and nothing when all is swept.
        check(Pace { live: 900_000, ..pace }, 100, 100);
        let drained = Pace {
            live: 900_000,
            state: DRAINED,
            ..pace
        };
        check(drained, 0, 0);
    }

    #[test]
    fn what_no_sweeper_is_at_is_implausible() {
        let pace = Pace::default();
        assert!(pace.is_plausible());
        for pages_per_byte in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(!Pace { pages_per_byte, ..pace }.is_plausible());
        }
        assert!(
            !Pace {
                in_use: 1 << 40,
                ..pace
            }
            .is_plausible()
        );
        assert!(!Pace { state: 1 << 30, ..pace }.is_plausible());
    }
}
