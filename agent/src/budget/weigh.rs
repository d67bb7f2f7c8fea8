//! What windows saw, as figures of the whole time. Pure.
//!
//! A stretch is the time from the end of one window to the end of the next. What its window saw is multiplied by
//! stretch / window. A wait that lasts `v` is seen only when it lies in the window whole, which of all that begin in a
//! window of length `w` is (w − v) / w: so its weight is w / (w − v) besides. While the window is always open every weight
//! is 1, and figures are the kernel's own counts.

use std::collections::HashMap;

use agent_common::histogram::{Bucket, Series};

use super::Plane;
use crate::aggregate::{Histogram, store::Reading};

/// Series of what is seen at its end alone: how long it was does not say whether a window sees it.
const AT_END: &[Series] = &[Series::GoAssist];
/// Series of what was ready and did not run.
const READY: &[Series] = &[Series::GoRunnable, Series::TokioWake];
/// Values of over this share of a window are too rarely seen whole for their weight to mean much: it grows no further.
const LONGEST: f64 = 0.75;

#[derive(Clone, Copy, Debug, Default)]
struct Weighed {
    count: f64,
    sum: f64,
}

/// One plane's weighed figures of one target, cumulative.
#[derive(Debug)]
pub struct Weigher {
    plane: Plane,
    /// The kernel's counts at the last settling.
    histograms: HashMap<(u16, u32), Histogram>,
    counters: HashMap<(u16, u32), u64>,
    weighed: HashMap<(u16, u32, u16), Weighed>,
    weighed_counters: HashMap<(u16, u32), f64>,
    /// Sums that are kept in parts, at the last settling and weighed.
    parts: HashMap<(u16, u32, u8), Bucket>,
    weighed_parts: HashMap<(u16, u32, u8), Weighed>,
    /// Time covered by windows, and time, ns.
    covered: f64,
    elapsed: f64,
    /// How many goroutines or tasks were ready and did not run in the last window, on average.
    ready: f64,
}

/// A window and the time it stands for, ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Since the last one's end.
    pub elapsed: f64,
    /// Of it, open.
    pub open: f64,
    /// The window was opened and closed within: long waits are cut off at both ends.
    pub bounded: bool,
}

impl Weigher {
    /// Nothing seen yet.
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            histograms: HashMap::new(),
            counters: HashMap::new(),
            weighed: HashMap::new(),
            weighed_counters: HashMap::new(),
            parts: HashMap::new(),
            weighed_parts: HashMap::new(),
            covered: 0.0,
            elapsed: 0.0,
            ready: 0.0,
        }
    }

    /// What its windows see.
    fn series(&self) -> impl Iterator<Item = &'static Series> + use<> {
        let plane = Some(self.plane);
        Series::ALL.iter().filter(move |series| series.plane() == plane)
    }

    /// Adds what came in `stretch`, at whose end `reading` was taken, and returns how many events of histograms.
    pub fn settle(&mut self, reading: &Reading, target_id: u32, stretch: Interval) -> u64 {
        self.elapsed += stretch.elapsed;
        self.covered += stretch.open;
        if stretch.open <= 0.0 {
            return 0;
        }
        let mut events = 0;
        let factor = (stretch.elapsed / stretch.open).max(1.0);
        // How many begin in a window for one that lies in it whole.
        let whole = |value: f64| {
            if stretch.bounded {
                1.0 / (1.0 - (value / stretch.open).min(LONGEST))
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
                    if READY.contains(series) {
                        self.ready += bucket.sum as f64 / stretch.open;
                    }
                    events += bucket.count;
                    let value = bucket.sum as f64 / bucket.count as f64;
                    let weight = factor * whole(value);
                    let weighed = self.weighed.entry((*series as u16, id, index)).or_default();
                    weighed.count += bucket.count as f64 * weight;
                    weighed.sum += bucket.sum as f64 * weight;
                }
                before.clone_from(now);
            }
            let of_series = reading
                .counters
                .iter()
                .filter(|((of, kind, _), _)| *of == target_id && *kind == *series as u16);
            for ((_, kind, id), now) in of_series {
                let before = self.counters.entry((*kind, *id)).or_default();
                *self.weighed_counters.entry((*kind, *id)).or_default() += now.saturating_sub(*before) as f64 * factor;
                *before = *now;
            }
            for (id, part, now) in reading.sums(target_id, *series) {
                let key = (*series as u16, id, part);
                let before = std::mem::replace(self.parts.entry(key).or_default(), now);
                let count = now.count.saturating_sub(before.count) as f64;
                if count > 0.0 {
                    let sum = now.sum.saturating_sub(before.sum) as f64;
                    // A part keeps no single values: their mean stands for them.
                    let weight = if AT_END.contains(series) {
                        factor
                    } else {
                        factor * whole(sum / count)
                    };
                    let weighed = self.weighed_parts.entry(key).or_default();
                    weighed.count += count * weight;
                    weighed.sum += sum * weight;
                }
            }
        }
        events
    }

    /// Puts the weighed figures in the place of the windows' own.
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
        for ((series, id, index), weighed) in &self.weighed {
            // The sum goes with the rounded count: a bucket's mean stays within its bounds.
            let count = weighed.count.round();
            let bucket = Bucket {
                count: count as u64,
                sum: (weighed.sum / weighed.count * count).round() as u64,
            };
            if bucket.count > 0 {
                reading
                    .histograms
                    .entry((target_id, *series, *id))
                    .or_default()
                    .add(*index, bucket);
            }
        }
        for ((series, id), count) in &self.weighed_counters {
            reading.counters.insert((target_id, *series, *id), count.round() as u64);
        }
        for ((series, id, part), weighed) in &self.weighed_parts {
            let bucket = Bucket {
                count: weighed.count.round() as u64,
                sum: weighed.sum.round() as u64,
            };
            reading.sums.insert((target_id, *series, *id, *part), bucket);
        }
    }

    /// How many goroutines or tasks were ready and did not run in the last window, on average.
    pub fn ready(&self) -> f64 {
        self.ready
    }

    /// Time that windows covered, and time, ns.
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

    fn weighed(weigher: &Weigher, reading: &Reading) -> Histogram {
        let mut reading = reading.clone();
        weigher.apply(&mut reading, TARGET_ID);
        reading.whole(TARGET_ID, Series::GoRunnable)
    }

    #[test]
    fn an_open_window_changes_nothing() {
        let (mut weigher, mut reading) = (Weigher::new(Plane::Probes), Reading::default());
        for round in 1..50 {
            add(&mut reading, 1000 * round, round);
            let stretch = Interval {
                elapsed: 1e9,
                open: 1e9,
                bounded: false,
            };
            weigher.settle(&reading, TARGET_ID, stretch);
            assert_eq!(
                weighed(&weigher, &reading),
                reading.whole(TARGET_ID, Series::GoRunnable)
            );
        }
        assert_eq!(weigher.times(), (49e9, 49e9));
    }

    #[test]
    fn a_window_stands_for_its_stretch() {
        let (mut weigher, mut reading) = (Weigher::new(Plane::Probes), Reading::default());
        for (count, elapsed) in [(10, 4e9), (20, 1e9)] {
            add(&mut reading, 1000, count);
            let stretch = Interval {
                elapsed,
                open: 1e9,
                bounded: false,
            };
            weigher.settle(&reading, TARGET_ID, stretch);
        }
        let mut after = reading.clone();
        weigher.apply(&mut after, TARGET_ID);
        assert_eq!(after.whole(TARGET_ID, Series::GoRunnable).count(), 60);
        assert_eq!(after.counter(TARGET_ID, Series::GoUnstamped), 60);
        assert_eq!(weigher.times(), (2e9, 5e9));
        // Other targets' figures, and those that do not depend on windows, stay.
        reading
            .histograms
            .insert((9, Series::GoRunnable as u16, 0), Histogram::default());
        reading
            .histograms
            .insert((TARGET_ID, Series::RunQueue as u16, 0), Histogram::default());
        weigher.apply(&mut reading, TARGET_ID);
        assert_eq!(reading.histograms.len(), 3);
    }

    #[test]
    fn quantiles_stay_in_order_when_counts_are_rounded() {
        let (mut weigher, mut reading) = (Weigher::new(Plane::Probes), Reading::default());
        for value in [1000, 1900, 2500] {
            add(&mut reading, value, 1);
        }
        let stretch = Interval {
            elapsed: 1.45e9,
            open: 1e9,
            bounded: true,
        };
        weigher.settle(&reading, TARGET_ID, stretch);
        let found = weighed(&weigher, &reading);
        for (index, bucket) in found.buckets() {
            let (low, high) = agent_common::histogram::bounds_of(index);
            let mean = bucket.sum / bucket.count;
            assert!((low..high).contains(&mean), "{mean} in {low}..{high}");
        }
    }

    /// Waits of three lengths begin at random; what windows of 100 ms in every second see is weighed.
    #[test]
    fn short_and_long_waits_are_counted_alike() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut weigher, mut reading) = (Weigher::new(Plane::Probes), Reading::default());
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
            let stretch = Interval {
                elapsed: 1e9,
                open: 1e8,
                bounded: true,
            };
            weigher.settle(&reading, TARGET_ID, stretch);
        }
        let found = weighed(&weigher, &reading);
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
