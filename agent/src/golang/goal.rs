//! What the heap may grow to until the next GC cycle.

use std::io;

use super::{GoRuntime, NONE};
use crate::inspect::FieldLoc;

impl GoRuntime {
    /// gcController.heapGoal (mgcpacer.go): the goal by GOGC, or by GOMEMLIMIT when that is lower.
    pub(super) fn heap_goal(&self, limit: Option<u64>) -> io::Result<Option<u64>> {
        let fields = &self.offsets.gc_controller;
        let read = |field: &Option<FieldLoc>| -> io::Result<Option<u64>> {
            field
                .as_ref()
                .map(|field| self.field(self.globals.gc_controller, field))
                .transpose()
        };
        let Some(by_percent) = read(&fields.gc_percent_heap_goal)? else {
            return read(&fields.heap_goal);
        };
        let parts = (
            limit,
            read(&fields.mapped_ready)?,
            read(&fields.heap_free)?,
            read(&fields.total_alloc)?,
            read(&fields.total_free)?,
        );
        let (Some(limit), Some(mapped), Some(free), Some(allocated), Some(freed)) = parts else {
            return Ok(Some(by_percent));
        };
        if limit >= NONE {
            return Ok(Some(by_percent));
        }
        let marked = self.field(self.globals.gc_controller, &fields.heap_marked)?;
        let by_limit = goal_by_limit(limit, mapped, free, allocated.saturating_sub(freed), marked);
        Ok(Some(by_percent.min(by_limit)))
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
    use super::goal_by_limit;

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
