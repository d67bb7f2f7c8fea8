//! Extrapolates what windows saw to the whole time. Pure.
//!
//! An interval is the time from the end of one window to the end of the next. What its window saw is multiplied by
//! interval / window. A wait of length `v` is seen only if it lies completely in the window. Of the waits that begin in a
//! window of length `w`, the share (w − v) / w does, so their weight is w / (w − v) in addition. While the window is always
//! open, every weight is 1, and figures are the kernel's own counts.
//!
//! A target may do less while it is observed, or windows may meet more or less of its bursts than there were: counts are corrected by what is always
//! counted ([`Amount`]). Sums of time in states are not, as that time passes whatever is done.
//!
//! For the time since the last interval, what the last windows saw for the same work is added: the next window replaces it.

use std::collections::HashMap;

use agent_common::histogram::{Bucket, COUNTER, SUMS, SeenWhen, Series, sum_bucket};

use super::{Amount, Plane, Work};
use crate::aggregate::{Histogram, store::Reading};

/// Values longer than this share of a window are rarely seen. Their weight does not grow further.
const LONGEST: f64 = 0.75;
/// How much of the intervals before the last counts for what is recent.
const FADE: f64 = 0.5;
/// In so many first windows the correction is not known well yet: their figures are corrected afterwards.
const EARLY: u32 = 20;
/// Windows that take a larger share of their interval are not compared with it.
const COMPARED: f64 = 0.9;

#[derive(Clone, Copy, Debug, Default)]
struct Extrapolated {
    count: f64,
    sum: f64,
}

impl Extrapolated {
    fn add(&mut self, other: Self, weight: Weight) {
        let Self { count, sum } = other.times(weight);
        self.count += count;
        self.sum += sum;
    }

    fn times(self, weight: Weight) -> Self {
        Self {
            count: weight.count * self.count,
            sum: weight.sum * self.sum,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Weight {
    count: f64,
    sum: f64,
}

/// One bucket, counter or sum.
#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    /// Of all intervals.
    total: Extrapolated,
    /// Of the last few.
    recent: Extrapolated,
    /// Up to now, as far as is known, and as it was reported: cumulative figures do not decrease.
    now: Extrapolated,
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
    /// The work, and the time, ns, in what is recent.
    recent: (Work, f64),
    /// Of intervals in whose windows nothing could be seen: they belong to the next.
    carried: (Work, f64),
    amount: Amount,
    /// Windows so far, up to [`EARLY`].
    early: u32,
    /// Time that windows covered, and all time, ns.
    covered: f64,
    elapsed: f64,
    /// Goroutines or tasks that were ready and did not run in the last window, on average.
    ready: f64,
}

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

impl Extrapolator {
    /// Without any figures yet.
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            histograms: HashMap::new(),
            counters: HashMap::new(),
            sums: HashMap::new(),
            figures: HashMap::new(),
            recent: Default::default(),
            carried: Default::default(),
            amount: Amount::default(),
            early: 0,
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
        let (work, elapsed) = std::mem::take(&mut self.carried);
        let (work, elapsed) = (work.and(interval.work), elapsed + interval.elapsed);
        if interval.open <= 0.0 {
            self.carried = (work, elapsed);
            return 0;
        }
        self.recent = (self.recent.0.part(FADE).and(work), FADE * self.recent.1 + elapsed);
        for figure in self.figures.values_mut() {
            figure.recent.count *= FADE;
            figure.recent.sum *= FADE;
        }
        let mut events = 0;
        let more = if self.early == EARLY { self.amount.factor() } else { 1.0 };
        let by_time = (elapsed / interval.open).max(1.0);
        let by_work = (more * by_time).max(1.0);
        // How many begin in a window for each that lies completely in it.
        let whole = |value: f64| {
            if interval.bounded {
                1.0 / (1.0 - (value / interval.open).min(LONGEST))
            } else {
                1.0
            }
        };
        let figures = &mut self.figures;
        let mut add = |key: Key, seen: Extrapolated, weight: Weight| {
            let figure = figures.entry(key).or_default();
            figure.total.add(seen, weight);
            figure.recent.add(seen, weight);
        };
        self.ready = 0.0;
        let plane = Some(self.plane);
        for series in Series::ALL.iter().filter(|series| series.plane() == plane) {
            let number = *series as u16;
            let weight = |value: f64| {
                let (seen, sum) = match series.seen_when() {
                    SeenWhen::AtEnd => (1.0, by_work),
                    SeenWhen::Whole | SeenWhen::Ready => (whole(value), by_work),
                    SeenWhen::State => (whole(value), by_time),
                };
                Weight {
                    count: seen * by_work,
                    sum: seen * sum,
                }
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
                    add((number, *id, COUNTER), Extrapolated { count, sum: 0.0 }, weight(0.0));
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
        if interval.open < COMPARED * elapsed {
            let inside = (interval.open_work, interval.open);
            self.amount.note((work, elapsed), inside, events);
        }
        if self.early < EARLY {
            self.early += 1;
            if self.early == EARLY {
                self.correct_early();
            }
        }
        events
    }

    /// Corrects the figures of the first windows once and for all.
    fn correct_early(&mut self) {
        let more = self.amount.factor();
        for ((series, _, index), figure) in &mut self.figures {
            let weight = Weight {
                count: more,
                sum: if is_state(*series, *index) { 1.0 } else { more },
            };
            for sum in [&mut figure.total, &mut figure.recent] {
                *sum = sum.times(weight);
            }
        }
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
        let (work, elapsed) = (self.carried.0.and(work), self.carried.1 + elapsed);
        let (recent_work, recent_time) = self.recent;
        let by_time = if recent_time > 0.0 { elapsed / recent_time } else { 0.0 };
        let by_work = work.ratio(recent_work).unwrap_or(by_time);
        let more = if self.early < EARLY { self.amount.factor() } else { 1.0 };
        for ((series, _, index), figure) in &mut self.figures {
            let is_state = is_state(*series, *index);
            let weight = |work: f64, time: f64| Weight {
                count: work,
                sum: if is_state { time } else { work },
            };
            figure.now = figure.total.times(weight(more, 1.0));
            figure.now.add(figure.recent, weight(more * by_work, by_time));
        }
        self.advance();
        for ((series, id, index), Figure { reported, .. }) in &self.figures {
            let Extrapolated { count, sum } = *reported;
            let key = (target_id, *series, *id);
            let rounded = count.round();
            if rounded == 0.0 {
                continue;
            }
            if *index == COUNTER {
                reading.counters.insert(key, rounded as u64);
                continue;
            }
            let mut bucket = Bucket {
                count: rounded as u64,
                sum: sum.round() as u64,
            };
            if *index >= SUMS {
                let key = (target_id, *series, *id, *index as u8);
                reading.sums.insert(key, bucket);
            } else {
                // The sum belongs to the rounded count: so the bucket's mean stays within its bounds.
                bucket.sum = (sum / count * rounded).round() as u64;
                reading.histograms.entry(key).or_default().add(*index, bucket);
            }
        }
    }

    /// Brings what is reported up to what is known now. No figure decreases. So if some of a distribution's buckets had too much before, the others get
    /// less now: together they have what the distribution has. Each on its own would keep the most that chance ever gave it.
    fn advance(&mut self) {
        let one = Weight { count: 1.0, sum: 1.0 };
        let mut missing: HashMap<Key, Extrapolated> = HashMap::new();
        let mut below: HashMap<Key, Extrapolated> = HashMap::new();
        for (key, Figure { now, reported, .. }) in &self.figures {
            let (count, sum) = (now.count - reported.count, now.sum - reported.sum);
            let whole = whole_of(*key);
            missing.entry(whole).or_default().add(Extrapolated { count, sum }, one);
            let (count, sum) = (count.max(0.0), sum.max(0.0));
            below.entry(whole).or_default().add(Extrapolated { count, sum }, one);
        }
        let share = |missing: f64, below: f64| if below > 0.0 { (missing / below).max(0.0) } else { 0.0 };
        for (key, Figure { now, reported, .. }) in &mut self.figures {
            let whole = whole_of(*key);
            let (missing, below) = (missing[&whole], below[&whole]);
            let of_count = share(missing.count, below.count);
            if key.2 >= SUMS {
                let of_sum = share(missing.sum, below.sum);
                reported.count += of_count * (now.count - reported.count).max(0.0);
                reported.sum += of_sum * (now.sum - reported.sum).max(0.0);
            } else if now.count > reported.count {
                // The mean stays between the two.
                reported.count += of_count * (now.count - reported.count);
                reported.sum += of_count * (now.sum - reported.sum);
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

/// The key of all that is divided into buckets, or into categories, together.
fn whole_of((series, id, index): Key) -> Key {
    let whole = match index {
        COUNTER => COUNTER,
        SUMS.. => SUMS,
        _ => 0,
    };
    (series, id, whole)
}

/// Whether it is the sum of time in a state.
fn is_state(series: u16, index: u16) -> bool {
    let mut states = Series::ALL
        .iter()
        .filter(|series| series.seen_when() == SeenWhen::State);
    index >= SUMS && index != COUNTER && states.any(|state| *state as u16 == series)
}

#[cfg(test)]
mod tests;
