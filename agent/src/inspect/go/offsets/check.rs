//! What DWARF says is believed as far as it can be so: what is read at once by it has a size that a runtime's can have.

use super::{FieldLoc, GoOffsets, missing};
use crate::inspect::InspectError;

/// Bytes of a g up to the last field that is read: some 400.
const MAX_G: u64 = 64 << 10;
/// Bytes of a heapStatsDelta: some 1,200.
const MAX_HEAP_STATS: u64 = 64 << 10;

impl GoOffsets {
    /// Whether each field lies within what it is read with.
    pub(super) fn check(&self) -> Result<(), InspectError> {
        let refused = |root: &str, path: &str| Err(missing(root, path));
        let (g, stats) = (&self.g, &self.heap_stats);
        let of_look = [g.goid, g.gopc, g.startpc, g.waitreason, g.atomicstatus, g.m];
        let of_stack = [g.sched_pc, g.sched_sp, g.sched_lr, g.stack_lo, g.stack_hi];
        let beside = [g.syscallsp, g.syscallpc, g.waitsince, g.tracking_seq, g.lockedm];
        let mut of_g = of_look.iter().chain(&of_stack).chain(&beside).chain(&g.parent_goid);
        if of_g.any(|field| field.offset + field.size > MAX_G) {
            return refused("runtime.g", "fields within 64 KiB");
        }
        let of_stats = [
            stats.committed,
            stats.in_stacks,
            stats.released,
            stats.large_alloc,
            stats.large_alloc_count,
            stats.small_alloc_count,
        ];
        let size = self.heap_stats_size;
        let fits = |field: &FieldLoc| field.offset.is_multiple_of(8) && field.offset + field.size.max(8) <= size;
        if size > MAX_HEAP_STATS || !size.is_multiple_of(8) || !of_stats.iter().all(fits) {
            return refused("runtime.heapStatsDelta", "fields within its size");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{buildinfo::parse_version, layouts};
    use super::*;

    #[track_caller]
    fn check(change: fn(&mut GoOffsets), expected: bool) {
        let version = parse_version("go1.26.0").unwrap();
        let mut offsets = layouts::of_release(&version, "amd64").unwrap();
        change(&mut offsets);
        assert_eq!(offsets.check().is_ok(), expected);
    }

    #[test]
    fn offsets_that_no_runtime_has_are_refused() {
        check(|_| {}, true);
        check(|offsets| offsets.g.goid.offset = 1 << 20, false);
        check(|offsets| offsets.g.stack_hi.offset = 1 << 20, false);
        check(|offsets| offsets.heap_stats_size = 1 << 40, false);
        check(|offsets| offsets.heap_stats_size = 12, false);
        check(
            |offsets| offsets.heap_stats.committed.offset = offsets.heap_stats_size,
            false,
        );
        check(|offsets| offsets.heap_stats.small_alloc_count.size = 1 << 20, false);
    }
}
