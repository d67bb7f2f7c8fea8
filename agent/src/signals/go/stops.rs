//! The GC's stops of the world, which become parts of their cycle's trace when that cycle is seen.

use std::collections::VecDeque;

use agent_common::go::stw::Stop;

/// The GC's stops that wait for their cycle.
const KEPT: usize = 8;

/// The GC's stops of late, until the cycle that they belong to is seen.
#[derive(Debug, Default)]
pub struct Stops(VecDeque<Stop>);

impl Stops {
    /// Keeps a stop, instead of the oldest one if there are too many.
    pub fn keep(&mut self, stop: Stop) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(stop);
    }

    /// The stop for `reason` that was requested in the time from `begin` to `end`, or a little before.
    pub fn within(&self, reason: u32, begin: i64, end: i64) -> Option<Stop> {
        /// The runtime reads its clock for the cycle before or after it asks, ns.
        const SLACK: i64 = 1_000_000;
        let times = begin.saturating_sub(SLACK)..=end;
        let fits = |stop: &&Stop| stop.reason == reason && times.contains(&(stop.requested as i64));
        self.0.iter().rev().find(fits).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_stops_are_kept_than_there_is_room_for() {
        let mut stops = Stops::default();
        let stop = |requested| Stop {
            requested,
            ..Stop::default()
        };
        (0..100).for_each(|requested| stops.keep(stop(requested)));
        assert_eq!(stops.0.len(), KEPT);
    }
}
