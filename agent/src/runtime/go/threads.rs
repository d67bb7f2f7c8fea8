//! Threads as the runtime counts them (go1.26, runtime/proc.go, mcount).

use std::io;

use super::GoRuntime;

/// Ms: the runtime's threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threads {
    /// Made since the start, and of them those that ended.
    pub created: u64,
    pub ended: u64,
    /// Without a goroutine to run, asleep.
    pub idle: u64,
}

impl Threads {
    /// Whether none came or went between two readings.
    pub(super) fn are_those_of(&self, other: &Self) -> bool {
        (self.created, self.ended) == (other.created, other.ended)
    }
}

impl GoRuntime {
    /// None where the version keeps no such numbers.
    pub(super) fn threads(&self) -> io::Result<Option<Threads>> {
        let sched = &self.offsets.sched;
        let (Some(created), Some(ended), Some(idle)) = (&sched.mnext, &sched.nmfreed, &sched.nmidle) else {
            return Ok(None);
        };
        let read = |field| self.field(self.globals.sched, field);
        Ok(Some(Threads {
            created: read(created)?,
            ended: read(ended)?,
            idle: read(idle)?,
        }))
    }
}
