//! The GC's stops of the world, which become parts of their cycle's trace when that cycle is seen; and of all stops, by place: who forced a
//! cycle, and who was late to stop.

use std::collections::{BTreeMap, VecDeque};

use agent_common::go::stw::Stop;

/// The GC's stops that wait for their cycle.
const KEPT: usize = 8;

/// Places that are kept apart; stops at others are not counted.
const PLACES: usize = 32;
/// A goroutine that stops this long after the request is late, ns. One that is preempted by a signal stops within some 100 µs.
pub const LATE: u64 = 5_000_000;

/// The GC's stops of late, until the cycle that they belong to is seen.
#[derive(Debug, Default)]
pub struct Stops {
    waiting: VecDeque<Stop>,
    /// By place of the call that forced it: GC cycles.
    forced: BTreeMap<String, u64>,
    /// By place of the goroutine that was last.
    late: BTreeMap<String, Late>,
}

/// Stops of the world that waited for a goroutine at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    pub count: u64,
    /// From the request until it stopped, less the time that its thread waited for a core, ns.
    pub time: u64,
    /// Of these stops, those of which it is not known how long the thread waited for a core.
    pub unsplit: u64,
}

impl Stops {
    /// Keeps a stop, instead of the oldest one if there are too many.
    pub fn keep(&mut self, stop: Stop) {
        if self.waiting.len() == KEPT {
            self.waiting.pop_front();
        }
        self.waiting.push_back(stop);
    }

    /// Takes note of a cycle that was forced at a place.
    pub fn note_forced(&mut self, place: String) {
        if let Some(count) = entry(&mut self.forced, place) {
            *count += 1;
        }
    }

    /// Takes note of the last to stop, if it was late itself and not its thread.
    pub fn note_last(&mut self, stop: &Stop, place: impl FnOnce() -> Option<String>) {
        let took = stop.last_stopped.saturating_sub(stop.requested);
        let off = stop.last_off_cpu;
        let time = took.saturating_sub(off.run_queue + off.throttled);
        if stop.last_goid == 0 || time < LATE {
            return;
        }
        if let Some(late) = place().and_then(|place| entry(&mut self.late, place)) {
            late.count += 1;
            late.time += time;
            late.unsplit += u64::from(stop.split == 0);
        }
    }

    /// Forced cycles, by place.
    pub fn forced(&self) -> &BTreeMap<String, u64> {
        &self.forced
    }

    /// Late stops, by place.
    pub fn late(&self) -> &BTreeMap<String, Late> {
        &self.late
    }

    /// The stop for `reason` that was requested in the time from `begin` to `end`, or a little before.
    pub fn within(&self, reason: u32, begin: i64, end: i64) -> Option<Stop> {
        /// The runtime reads its clock for the cycle before or after it asks, ns.
        const SLACK: i64 = 1_000_000;
        let times = begin.saturating_sub(SLACK)..=end;
        let fits = |stop: &&Stop| stop.reason == reason && times.contains(&(stop.requested as i64));
        self.waiting.iter().rev().find(fits).copied()
    }
}

/// What is kept of a place, unless there are too many.
fn entry<T: Default>(places: &mut BTreeMap<String, T>, place: String) -> Option<&mut T> {
    let is_known = places.contains_key(&place);
    (is_known || places.len() < PLACES).then(|| places.entry(place).or_default())
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
        assert_eq!(stops.waiting.len(), KEPT);
    }

    #[test]
    fn who_is_late_is_told_from_whose_thread_had_no_core() {
        let mut stops = Stops::default();
        let stop = |late: u64, run_queue: u64, goid: u64| {
            let mut stop = Stop {
                requested: 1000,
                last_stopped: 1000 + late,
                last_goid: goid,
                split: 1,
                ..Stop::default()
            };
            stop.last_off_cpu.run_queue = run_queue;
            stop
        };
        let note = |stops: &mut Stops, stop: Stop, place: &str| stops.note_last(&stop, || Some(place.to_owned()));
        note(&mut stops, stop(3 * LATE, 0, 7), "a");
        note(&mut stops, stop(3 * LATE, LATE, 7), "a");
        note(&mut stops, stop(3 * LATE, 5 * LATE / 2, 7), "a");
        note(&mut stops, stop(LATE - 1, 0, 7), "b");
        note(&mut stops, stop(3 * LATE, 0, 0), "c");
        let late = Late {
            count: 2,
            time: 5 * LATE,
            unsplit: 0,
        };
        assert_eq!(stops.late(), &BTreeMap::from([("a".to_owned(), late)]));
    }

    #[test]
    fn places_are_limited() {
        let mut stops = Stops::default();
        for number in 0..2 * PLACES {
            stops.note_forced(format!("{number:03}"));
        }
        stops.note_forced("000".to_owned());
        assert_eq!((stops.forced().len(), stops.forced()["000"]), (PLACES, 2));
    }
}
