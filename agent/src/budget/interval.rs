//! A window and the time that it stands for.

use super::Work;

/// Windows that take a larger share of their interval are not compared with it.
const COMPARED: f64 = 0.9;

/// A window and what it stands for. Times in ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Since the end of the previous window.
    pub elapsed: f64,
    /// What the target did meanwhile.
    pub work: Work,
    /// How long the window was open, and what the target did in it.
    pub open: f64,
    pub open_work: Work,
    /// Whether the window was opened and closed within the interval: then long waits are cut off at both ends.
    pub bounded: bool,
}

impl Interval {
    /// Both together.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            elapsed: self.elapsed + later.elapsed,
            work: self.work.and(later.work),
            open: self.open + later.open,
            open_work: self.open_work.and(later.open_work),
            bounded: self.bounded || later.bounded,
        }
    }

    /// How many times as long as its windows it is.
    pub(super) fn by_time(self) -> f64 {
        (self.elapsed / self.open).max(1.0)
    }

    /// Whether a window was open nearly all the time.
    pub(super) fn is_whole(self) -> bool {
        self.open >= COMPARED * self.elapsed
    }
}
