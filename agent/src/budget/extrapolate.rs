//! Extrapolates what windows saw to the whole time. Pure.
//!
//! An interval is the time from the end of one window to the end of the next. What its window saw is multiplied by
//! interval / window. A wait of length `v` is seen only if it lies completely in the window. Of the waits that begin in a
//! window of length `w`, the share (w − v) / w does, so their weight is w / (w − v) in addition. While the window is always
//! open, every weight is 1, and figures are the kernel's own counts.
//!
//! For the time since the last interval, what the last windows saw for each ns of the target's own CPU time is added: the next window replaces it.

use std::collections::HashMap;

use agent_common::histogram::{Bucket, COUNTER, SUMS, SeenWhen, Series, sum_bucket};

use super::Plane;
use crate::aggregate::{Histogram, store::Reading};

/// Values longer than this share of a window are rarely seen. Their weight does not grow further.
const LONGEST: f64 = 0.75;
/// How much of the intervals before the last counts for what is recent.
const FADE: f64 = 0.5;

#[derive(Clone, Copy, Debug, Default)]
struct Extrapolated {
    count: f64,
    sum: f64,
}

impl Extrapolated {
    fn add(&mut self, other: Self, weight: f64) {
        self.count += weight * other.count;
        self.sum += weight * other.sum;
    }
}

/// One bucket, counter or sum.
#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    /// Of all intervals.
    total: Extrapolated,
    /// Of the last few.
    recent: Extrapolated,
    /// The largest that was reported: cumulative figures do not decrease.
    reported: Extrapolated,
}

/// Series, what it is split by, and the bucket's index, [`COUNTER`], or the [`sum_bucket`] of a category.
type Key = (u16, u32, u16);

/// The extrapolated figures of one plane of one target, cumulative.
#[derive(Debug)]
pub struct Extrapolator {
    plane: Plane,
    /// The kernel's counts at the last commit.
    histograms: HashMap<(u16, u32), Histogram>,
    counters: HashMap<(u16, u32), u64>,
    sums: HashMap<(u16, u32, u8), Bucket>,
    figures: HashMap<Key, Figure>,
    /// The target's own CPU time in what is recent, ns.
    recent_cpu: f64,
    /// Time that windows covered, and all time, ns.
    covered: f64,
    elapsed: f64,
    /// Goroutines or tasks that were ready and did not run in the last window, on average.
    ready: f64,
}

/// A window and the time it stands for, ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Since the end of the previous window.
    pub elapsed: f64,
    /// The target's own CPU time meanwhile.
    pub cpu: f64,
    /// How long the window was open.
    pub open: f64,
    /// Whether the window was opened and closed within the interval: then long waits are cut off at both ends.
    pub bounded: bool,
}

impl Extrapolator {
    /// Without any figures yet.
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            histograms: HashMap::new(),
            counters: HashMap::new(),
            sums: HashMap::new(),
            figures: HashMap::new(),
            recent_cpu: 0.0,
            covered: 0.0,
            elapsed: 0.0,
            ready: 0.0,
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
        if interval.open <= 0.0 {
            return 0;
        }
        self.recent_cpu = FADE * self.recent_cpu + interval.cpu;
        for figure in self.figures.values_mut() {
            figure.recent.count *= FADE;
            figure.recent.sum *= FADE;
        }
        let mut events = 0;
        let factor = (interval.elapsed / interval.open).max(1.0);
        // How many begin in a window for each that lies completely in it.
        let whole = |value: f64| {
            if interval.bounded {
                1.0 / (1.0 - (value / interval.open).min(LONGEST))
            } else {
                1.0
            }
        };
        let figures = &mut self.figures;
        let mut add = |key: Key, seen: Extrapolated, weight: f64| {
            let figure = figures.entry(key).or_default();
            figure.total.add(seen, weight);
            figure.recent.add(seen, weight);
        };
        self.ready = 0.0;
        let plane = Some(self.plane);
        for series in Series::ALL.iter().filter(|series| series.plane() == plane) {
            let number = *series as u16;
            let weight = |value: f64| match series.seen_when() {
                SeenWhen::AtEnd => factor,
                SeenWhen::Whole | SeenWhen::Ready => factor * whole(value),
            };
            for (id, now) in reading.split(target_id, *series) {
                let before = self.histograms.entry((number, id)).or_default();
                for (index, bucket) in now.since(before).buckets() {
                    if series.seen_when() == SeenWhen::Ready {
                        self.ready += bucket.sum as f64 / interval.open;
                    }
                    events += bucket.count;
                    let (count, sum) = (bucket.count as f64, bucket.sum as f64);
                    add((number, id, index), Extrapolated { count, sum }, weight(sum / count));
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
                    add((number, *id, COUNTER), Extrapolated { count, sum: 0.0 }, factor);
                }
            }
            for (id, category, now) in reading.sums(target_id, *series) {
                let before = std::mem::replace(self.sums.entry((number, id, category)).or_default(), now);
                let count = now.count.saturating_sub(before.count) as f64;
                if count > 0.0 {
                    let sum = now.sum.saturating_sub(before.sum) as f64;
                    // A sum has no single values: their mean is used.
                    let key = (number, id, sum_bucket(u32::from(category)));
                    add(key, Extrapolated { count, sum }, weight(sum / count));
                }
            }
        }
        events
    }

    /// Replaces the figures of the windows with the extrapolated ones. `cpu` is the target's own CPU time since the last interval, ns.
    pub fn apply(&mut self, reading: &mut Reading, target_id: u32, cpu: f64) {
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
        let since = if self.recent_cpu > 0.0 {
            cpu / self.recent_cpu
        } else {
            0.0
        };
        for ((series, id, index), figure) in &mut self.figures {
            let mut now = figure.total;
            now.add(figure.recent, since);
            if now.count >= figure.reported.count {
                figure.reported = now;
            }
            let Extrapolated { count, sum } = figure.reported;
            // The sum belongs to the rounded count: so the bucket's mean stays within its bounds.
            let bucket = Bucket {
                count: count.round() as u64,
                sum: (sum / count * count.round()).round() as u64,
            };
            if bucket.count == 0 {
                continue;
            }
            let key = (target_id, *series, *id);
            if *index == COUNTER {
                reading.counters.insert(key, bucket.count);
            } else if *index >= SUMS {
                reading.sums.insert((target_id, *series, *id, *index as u8), bucket);
            } else {
                reading.histograms.entry(key).or_default().add(*index, bucket);
            }
        }
    }

    /// How many goroutines or tasks were ready and did not run in the last window, on average.
    pub fn ready(&self) -> f64 {
        self.ready
    }

    /// Time that windows covered, and all time, ns.
    pub fn times(&self) -> (f64, f64) {
        (self.covered, self.elapsed)
    }
}

#[cfg(test)]
mod tests;
