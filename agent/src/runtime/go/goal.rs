//! What the heap may grow to until the next GC cycle.

use std::io;

use super::GoRuntime;
use crate::inspect::FieldLoc;

/// A limit or a goal of the runtime's, bytes; None where it stands for none. Those are math.MaxInt64, which is GOMEMLIMIT=off; all ones,
/// which is what GOGC=off makes of its goal, and the scavenger of one that it need not work for; and the goal that the runtime makes of
/// the first, some 3 % below it (go1.26, runtime/mgcpacer.go, readGOMEMLIMIT, commit, memoryLimitHeapGoal; runtime/mgcscavenge.go,
/// gcPaceScavenger). No machine has so much memory: a limit that the user set as high limits nothing either.
pub fn bounded(bytes: u64) -> Option<u64> {
    const LEAST: u64 = 1 << 62;
    (bytes < LEAST).then_some(bytes)
}

/// GOGC in percent; None when it is off, which is any negative number (go1.26, runtime/mgcpacer.go, setGCPercent).
pub fn gogc(percent: i32) -> Option<u64> {
    u64::try_from(percent).ok()
}

impl GoRuntime {
    /// gcController.heapGoal (mgcpacer.go): the goal by GOGC, or by GOMEMLIMIT when that is lower; and whether it is, where that is known.
    pub(super) fn heap_goal(&self, limit: Option<u64>) -> io::Result<Option<(u64, Option<bool>)>> {
        let fields = &self.offsets.gc_controller;
        let read = |field: &Option<FieldLoc>| -> io::Result<Option<u64>> {
            field
                .as_ref()
                .map(|field| self.field(self.globals.gc_controller, field))
                .transpose()
        };
        let Some(by_percent) = read(&fields.gc_percent_heap_goal)? else {
            return Ok(read(&fields.heap_goal)?.map(|goal| (goal, None)));
        };
        let parts = (
            limit.and_then(bounded),
            read(&fields.mapped_ready)?,
            read(&fields.heap_free)?,
            read(&fields.total_alloc)?,
            read(&fields.total_free)?,
        );
        let (Some(limit), Some(mapped), Some(free), Some(allocated), Some(freed)) = parts else {
            return Ok(Some((by_percent, Some(false))));
        };
        let marked = self.field(self.globals.gc_controller, &fields.heap_marked)?;
        let by_limit = goal_by_limit(limit, mapped, free, allocated.saturating_sub(freed), marked);
        Ok(Some((by_percent.min(by_limit), Some(by_limit < by_percent))))
    }
}

/// gcControllerState.memoryLimitHeapGoal (go1.26, runtime/mgcpacer.go), all in bytes.
fn goal_by_limit(limit: u64, mapped: u64, free: u64, heap: u64, marked: u64) -> u64 {
    const HEADROOM_PERCENT: u64 = 3;
    const MIN_HEADROOM: u64 = 1 << 20;
    let other = mapped.saturating_sub(free).saturating_sub(heap);
    let overage = mapped.saturating_sub(limit);
    if other + overage >= limit {
        return marked;
    }
    let goal = limit - (other + overage);
    let headroom = (goal / 100 * HEADROOM_PERCENT).max(MIN_HEADROOM);
    let goal = if goal < headroom || goal - headroom < headroom {
        headroom
    } else {
        goal - headroom
    };
    goal.max(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_no_limit_is_none() {
        const MAX_INT64: u64 = i64::MAX as u64;
        for (what, bytes) in [
            ("GOMEMLIMIT=off", MAX_INT64),
            ("debug.SetMemoryLimit(math.MaxInt64 - 1)", MAX_INT64 - 1),
            (
                "GOMEMLIMIT=8388607TiB, the most that it takes",
                MAX_INT64 - (1 << 40) + 1,
            ),
            ("the goal by no limit of an empty heap", MAX_INT64 - MAX_INT64 / 100 * 3),
            ("the same, as a go1.26 program had it", 8_946_670_875_744_333_991),
            ("what go1.26 makes of it for the scavenger", MAX_INT64 / 100 * 95),
            ("GOGC=off", u64::MAX),
            // Both: it is computed by wrapping arithmetic.
            ("GOGC=off, less what is mapped", u64::MAX - (1 << 40)),
        ] {
            assert_eq!(bounded(bytes), None, "{what}");
        }
        // GOMEMLIMIT=0 is a limit: the GC runs all the time. The largest machines' address spaces are 57 bits.
        for bytes in [0, 1, 4 << 20, 1 << 40, 1 << 57] {
            assert_eq!(bounded(bytes), Some(bytes));
        }
    }

    #[test]
    fn gogc_is_off_below_nothing() {
        for (percent, expected) in [
            (-1, None),
            (i32::MIN, None),
            (0, Some(0)),
            (100, Some(100)),
            (i32::MAX, Some(2_147_483_647)),
        ] {
            assert_eq!(gogc(percent), expected, "{percent}");
        }
    }

    #[test]
    fn the_limit_leaves_headroom_and_never_goes_below_the_marked_heap() {
        // 100 MiB limit, nothing but heap: 3 % headroom.
        assert_eq!(
            goal_by_limit(104_857_600, 50 << 20, 0, 50 << 20, 1 << 20),
            104_857_600 - 1_048_576 * 3
        );
        // Everything else eats the limit: the GC can do no better than the live heap.
        assert_eq!(goal_by_limit(10 << 20, 50 << 20, 0, 5 << 20, 4 << 20), 4 << 20);
        // A small limit keeps the minimal headroom.
        assert_eq!(goal_by_limit(2 << 20, 1 << 20, 0, 1 << 20, 0), 1 << 20);
    }
}
