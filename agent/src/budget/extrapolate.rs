//! Extrapolates what windows saw to the whole time. Pure.
//!
//! An interval is the time from the end of one window to the end of the next. What its window saw is multiplied by
//! interval / window. A wait of length `v` is seen only if it lies completely in the window. Of the waits that begin in a
//! window of length `w`, the share (w − v) / w does, so their weight is w / (w − v) in addition. While the window is always
//! open, every weight is 1, and figures are the kernel's own counts.
//!
//! A target may do less while it is observed, windows may meet more or less of its bursts than there were, and a burst ends a window early, as what may be
//! spent is used up: the mean of interval / window is then more than there was. So counts that follow what is always counted, which [`Amount`] says, are
//! multiplied by that: by how much of it there was in all intervals / in their windows. Sums of time in states are not, as that time passes whatever is done.
//!
//! For the time since the last interval, what the last windows saw for the same work is added: the next window replaces it.

use std::collections::HashMap;

use agent_common::histogram::{Bucket, COUNTER, SUMS, SeenWhen, Series, sum_bucket};

use super::{
    Interval, Plane, Work,
    figures::{Extrapolated, Figures, PERIOD},
    outdated::is_outdated,
};
use crate::aggregate::{Histogram, store::Reading};

/// Values longer than this share of a window are rarely seen. Their weight does not grow further.
const LONGEST: f64 = 0.75;

/// The extrapolated figures of one plane of one target, cumulative.
#[derive(Debug)]
pub struct Extrapolator {
    plane: Plane,
    /// The kernel's counts at the last commit.
    histograms: HashMap<(u16, u32), Histogram>,
    counters: HashMap<(u16, u32), u64>,
    sums: HashMap<(u16, u32, u8), Bucket>,
    figures: Figures,
    /// Intervals in whose windows nothing could be seen, as one: they belong to the next.
    carried: Option<Interval>,
    /// Time that windows covered, and all time, ns.
    covered: f64,
    elapsed: f64,
    /// Goroutines or tasks that were ready and did not run in the last window, on average.
    ready: f64,
    /// See [`Self::is_outdated`].
    is_outdated: bool,
}

impl Extrapolator {
    /// Without any figures yet.
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            histograms: HashMap::new(),
            counters: HashMap::new(),
            sums: HashMap::new(),
            figures: Figures::new(plane),
            carried: None,
            covered: 0.0,
            elapsed: 0.0,
            ready: 0.0,
            is_outdated: false,
        }
    }

    /// The series that are counted in this plane's windows.
    fn series(&self) -> impl Iterator<Item = &'static Series> + use<> {
        let plane = Some(self.plane);
        Series::ALL.iter().filter(move |series| series.plane() == plane)
    }

    /// Adds what was counted in `interval`, at whose end `reading` was taken; returns the number of values in histograms.
    pub fn commit(&mut self, reading: &Reading, target_id: u32, interval: Interval) -> u64 {
        self.elapsed += interval.elapsed;
        self.covered += interval.open;
        let mut interval = match self.carried.take() {
            Some(before) => before.and(interval),
            None => interval,
        };
        if interval.open <= 0.0 {
            self.carried = Some(interval);
            return 0;
        }
        if self.plane == Plane::Sample && interval.work.starts.is_some() {
            // The runtime counts the same ones.
            interval.open_work.starts = Some(PERIOD * self.seen(reading, target_id));
        }
        self.figures.begin(&interval);
        let mut events = 0;
        // How many begin in a window for each that lies completely in it.
        let whole = |value: f64| {
            if interval.bounded {
                1.0 / (1.0 - (value / interval.open).min(LONGEST))
            } else {
                1.0
            }
        };
        self.ready = 0.0;
        for series in self.series() {
            let number = *series as u16;
            let weight = |value: f64| match series.seen_when() {
                SeenWhen::AtEnd => 1.0,
                SeenWhen::Whole | SeenWhen::Ready | SeenWhen::State => whole(value),
            };
            for (id, now) in reading.split(target_id, *series) {
                let before = self.histograms.entry((number, id)).or_default();
                for (index, bucket) in now.since(before).buckets() {
                    if series.seen_when() == SeenWhen::Ready {
                        self.ready += bucket.sum as f64 / interval.open;
                    }
                    events += bucket.count;
                    let (count, sum) = (bucket.count as f64, bucket.sum as f64);
                    self.figures
                        .add((number, id, index), Extrapolated { count, sum }, weight(sum / count));
                }
                before.clone_from(now);
            }
            let of_series = reading
                .counters
                .iter()
                .filter(|((of, kind, _), _)| *of == target_id && *kind == number);
            for ((_, _, id), now) in of_series {
                let before = std::mem::replace(self.counters.entry((number, *id)).or_default(), *now);
                let count = now.saturating_sub(before) as f64;
                if count > 0.0 {
                    self.figures
                        .add((number, *id, COUNTER), Extrapolated { count, sum: 0.0 }, weight(0.0));
                }
            }
            for (id, category, now) in reading.sums(target_id, *series) {
                let before = std::mem::replace(self.sums.entry((number, id, category)).or_default(), now);
                let count = now.count.saturating_sub(before.count) as f64;
                if count > 0.0 {
                    let sum = now.sum.saturating_sub(before.sum) as f64;
                    // A sum has no single values: their mean is used.
                    let key = (number, id, sum_bucket(u32::from(category)));
                    self.figures.add(key, Extrapolated { count, sum }, weight(sum / count));
                }
            }
        }
        self.figures.end(&interval);
        events
    }

    /// How many values of the plane's series were seen since the last commit.
    fn seen(&self, reading: &Reading, target_id: u32) -> f64 {
        let of_series = self.series().map(|series| {
            let number = *series as u16;
            let values = reading.split(target_id, *series).map(|(id, now)| {
                let before = self.histograms.get(&(number, id)).map_or(0, Histogram::count);
                now.count().saturating_sub(before)
            });
            let counts = reading.counts(target_id, *series).map(|(id, now)| {
                let before = self.counters.get(&(number, id)).copied();
                now.saturating_sub(before.unwrap_or_default())
            });
            values.chain(counts).sum::<u64>()
        });
        of_series.sum::<u64>() as f64
    }

    /// Replaces the figures of the windows with the extrapolated ones. `work` is what the target did since the last interval, `elapsed` ns ago.
    pub fn apply(&mut self, reading: &mut Reading, target_id: u32, work: Work, elapsed: f64) {
        let windowed = |series: u16| self.series().any(|windowed| *windowed as u16 == series);
        reading
            .histograms
            .retain(|(of, series, _), _| *of != target_id || !windowed(*series));
        reading
            .counters
            .retain(|(of, series, _), _| *of != target_id || !windowed(*series));
        reading
            .sums
            .retain(|(of, series, ..), _| *of != target_id || !windowed(*series));
        let (work, elapsed) = match self.carried {
            Some(carried) => (carried.work.and(work), carried.elapsed + elapsed),
            None => (work, elapsed),
        };
        self.is_outdated = is_outdated(self.figures.recent, work, elapsed);
        self.figures.advance(work, elapsed);
        for ((series, id, index), Extrapolated { count, sum }) in self.figures.reported() {
            let key = (target_id, series, id);
            let rounded = count.round();
            if rounded == 0.0 {
                continue;
            }
            if index == COUNTER {
                reading.counters.insert(key, rounded as u64);
                continue;
            }
            let mut bucket = Bucket {
                count: rounded as u64,
                sum: sum.round() as u64,
            };
            if index >= SUMS {
                let key = (target_id, series, id, index as u8);
                reading.sums.insert(key, bucket);
            } else {
                // The sum belongs to the rounded count: so the bucket's mean stays within its bounds.
                bucket.sum = (sum / count * rounded).round() as u64;
                reading.histograms.entry(key).or_default().add(index, bucket);
            }
        }
    }

    /// How many goroutines or tasks were ready and did not run in the last window, on average.
    pub fn ready(&self) -> f64 {
        self.ready
    }

    /// Whether the last window, at the last reading, was too long ago: the load has risen since, and the figures do not have all of that.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Time that windows covered, and all time, ns.
    pub fn times(&self) -> (f64, f64) {
        (self.covered, self.elapsed)
    }
}

#[cfg(test)]
mod tests;
