//! Extrapolates what windows saw to the whole time. Pure.
//!
//! An interval is the time from the end of one window to the end of the next. What its window saw is multiplied by
//! interval / window. A wait of length `v` is seen only if it lies completely in the window. Of the waits that begin in a
//! window of length `w`, the share (w − v) / w does, so their weight is w / (w − v) in addition. While the window is always
//! open, every weight is 1, and figures are the kernel's own counts.

use std::collections::HashMap;

use agent_common::histogram::{Bucket, SeenWhen, Series};

use super::Plane;
use crate::aggregate::{Histogram, store::Reading};

/// Values longer than this share of a window are rarely seen. Their weight does not grow further.
const LONGEST: f64 = 0.75;

#[derive(Clone, Copy, Debug, Default)]
struct Extrapolated {
    count: f64,
    sum: f64,
}

/// The extrapolated figures of one plane of one target, cumulative.
#[derive(Debug)]
pub struct Extrapolator {
    plane: Plane,
    /// The kernel's counts at the last commit.
    histograms: HashMap<(u16, u32), Histogram>,
    counters: HashMap<(u16, u32), u64>,
    extrapolated: HashMap<(u16, u32, u16), Extrapolated>,
    extrapolated_counters: HashMap<(u16, u32), f64>,
    /// Sums by category, at the last commit and extrapolated.
    sums: HashMap<(u16, u32, u8), Bucket>,
    extrapolated_sums: HashMap<(u16, u32, u8), Extrapolated>,
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
            extrapolated: HashMap::new(),
            extrapolated_counters: HashMap::new(),
            sums: HashMap::new(),
            extrapolated_sums: HashMap::new(),
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
        self.ready = 0.0;
        for series in self.series() {
            for (id, now) in reading.split(target_id, *series) {
                let key = (*series as u16, id);
                let before = self.histograms.entry(key).or_default();
                for (index, bucket) in now.since(before).buckets() {
                    if series.seen_when() == SeenWhen::Ready {
                        self.ready += bucket.sum as f64 / interval.open;
                    }
                    events += bucket.count;
                    let value = bucket.sum as f64 / bucket.count as f64;
                    let weight = factor * whole(value);
                    let extrapolated = self.extrapolated.entry((*series as u16, id, index)).or_default();
                    extrapolated.count += bucket.count as f64 * weight;
                    extrapolated.sum += bucket.sum as f64 * weight;
                }
                before.clone_from(now);
            }
            let of_series = reading
                .counters
                .iter()
                .filter(|((of, kind, _), _)| *of == target_id && *kind == *series as u16);
            for ((_, kind, id), now) in of_series {
                let before = self.counters.entry((*kind, *id)).or_default();
                *self.extrapolated_counters.entry((*kind, *id)).or_default() +=
                    now.saturating_sub(*before) as f64 * factor;
                *before = *now;
            }
            for (id, category, now) in reading.sums(target_id, *series) {
                let key = (*series as u16, id, category);
                let before = std::mem::replace(self.sums.entry(key).or_default(), now);
                let count = now.count.saturating_sub(before.count) as f64;
                if count > 0.0 {
                    let sum = now.sum.saturating_sub(before.sum) as f64;
                    // A sum has no single values: their mean is used.
                    let weight = if series.seen_when() == SeenWhen::AtEnd {
                        factor
                    } else {
                        factor * whole(sum / count)
                    };
                    let extrapolated = self.extrapolated_sums.entry(key).or_default();
                    extrapolated.count += count * weight;
                    extrapolated.sum += sum * weight;
                }
            }
        }
        events
    }

    /// Replaces the figures of the windows with the extrapolated ones.
    pub fn apply(&self, reading: &mut Reading, target_id: u32) {
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
        for ((series, id, index), extrapolated) in &self.extrapolated {
            // The sum belongs to the rounded count: so the bucket's mean stays within its bounds.
            let count = extrapolated.count.round();
            let bucket = Bucket {
                count: count as u64,
                sum: (extrapolated.sum / extrapolated.count * count).round() as u64,
            };
            if bucket.count > 0 {
                reading
                    .histograms
                    .entry((target_id, *series, *id))
                    .or_default()
                    .add(*index, bucket);
            }
        }
        for ((series, id), count) in &self.extrapolated_counters {
            reading.counters.insert((target_id, *series, *id), count.round() as u64);
        }
        for ((series, id, category), extrapolated) in &self.extrapolated_sums {
            let bucket = Bucket {
                count: extrapolated.count.round() as u64,
                sum: extrapolated.sum.round() as u64,
            };
            reading.sums.insert((target_id, *series, *id, *category), bucket);
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
mod tests {
    use agent_common::histogram::bucket_of;

    use super::*;

    const TARGET_ID: u32 = 3;

    fn add(reading: &mut Reading, value: u64, count: u64) {
        let histogram = reading
            .histograms
            .entry((TARGET_ID, Series::GoRunnable as u16, 0))
            .or_default();
        histogram.add(
            bucket_of(value),
            Bucket {
                count,
                sum: value * count,
            },
        );
        *reading
            .counters
            .entry((TARGET_ID, Series::GoUnstamped as u16, 0))
            .or_default() += count;
    }

    fn extrapolated(extrapolator: &Extrapolator, reading: &Reading) -> Histogram {
        let mut reading = reading.clone();
        extrapolator.apply(&mut reading, TARGET_ID);
        reading.whole(TARGET_ID, Series::GoRunnable)
    }

    #[test]
    fn an_open_window_changes_nothing() {
        let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
        for round in 1..50 {
            add(&mut reading, 1000 * round, round);
            let interval = Interval {
                elapsed: 1e9,
                open: 1e9,
                bounded: false,
            };
            extrapolator.commit(&reading, TARGET_ID, interval);
            assert_eq!(
                extrapolated(&extrapolator, &reading),
                reading.whole(TARGET_ID, Series::GoRunnable)
            );
        }
        assert_eq!(extrapolator.times(), (49e9, 49e9));
    }

    #[test]
    fn a_window_stands_for_its_interval() {
        let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
        for (count, elapsed) in [(10, 4e9), (20, 1e9)] {
            add(&mut reading, 1000, count);
            let interval = Interval {
                elapsed,
                open: 1e9,
                bounded: false,
            };
            extrapolator.commit(&reading, TARGET_ID, interval);
        }
        let mut after = reading.clone();
        extrapolator.apply(&mut after, TARGET_ID);
        assert_eq!(after.whole(TARGET_ID, Series::GoRunnable).count(), 60);
        assert_eq!(after.counter(TARGET_ID, Series::GoUnstamped), 60);
        assert_eq!(extrapolator.times(), (2e9, 5e9));
        // Other targets' figures, and those that do not depend on windows, stay.
        reading
            .histograms
            .insert((9, Series::GoRunnable as u16, 0), Histogram::default());
        reading
            .histograms
            .insert((TARGET_ID, Series::RunQueue as u16, 0), Histogram::default());
        extrapolator.apply(&mut reading, TARGET_ID);
        assert_eq!(reading.histograms.len(), 3);
    }

    #[test]
    fn quantiles_stay_in_order_when_counts_are_rounded() {
        let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
        for value in [1000, 1900, 2500] {
            add(&mut reading, value, 1);
        }
        let interval = Interval {
            elapsed: 1.45e9,
            open: 1e9,
            bounded: true,
        };
        extrapolator.commit(&reading, TARGET_ID, interval);
        let found = extrapolated(&extrapolator, &reading);
        for (index, bucket) in found.buckets() {
            let (low, high) = agent_common::histogram::bounds_of(index);
            let mean = bucket.sum / bucket.count;
            assert!((low..high).contains(&mean), "{mean} in {low}..{high}");
        }
    }

    /// Waits of three lengths begin at random; what windows of 100 ms in every second see is extrapolated.
    #[test]
    fn short_and_long_waits_are_counted_alike() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
        let lengths = [10_000u64, 20_000_000, 50_000_000];
        let (seconds, each) = (2000u64, 40);
        let mut waits: Vec<(u64, u64)> = Vec::new();
        for length in lengths {
            waits.extend((0..seconds * each).map(|_| (random.u64(0..seconds * 1_000_000_000), length)));
        }
        waits.sort_unstable();
        let mut next = 0;
        for second in 0..seconds {
            let (from, to) = (
                second * 1_000_000_000 + 400_000_000,
                second * 1_000_000_000 + 500_000_000,
            );
            while next < waits.len() && waits[next].0 < to {
                let (start, length) = waits[next];
                if start >= from && start + length < to {
                    add(&mut reading, length, 1);
                }
                next += 1;
            }
            let interval = Interval {
                elapsed: 1e9,
                open: 1e8,
                bounded: true,
            };
            extrapolator.commit(&reading, TARGET_ID, interval);
        }
        let found = extrapolated(&extrapolator, &reading);
        for length in lengths {
            let count = found
                .buckets()
                .find(|(index, _)| *index == bucket_of(length))
                .map_or(0, |(_, bucket)| bucket.count);
            let ratio = count as f64 / (seconds * each) as f64;
            assert!((0.95..1.05).contains(&ratio), "{length} ns: {ratio}");
        }
    }
}
