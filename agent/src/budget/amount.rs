//! How much there was outside of windows: as much in the same time, or as much for the same work. Pure.
//!
//! A target that is observed may do less: in a window of the probes, two goroutines that only wake each other do so thirty times less often. And what it does
//! may come in bursts that windows meet by chance, or that end windows. What is always counted, inside of windows and over the whole time, tells both.

use super::{Interval, Work};

/// What was seen of earlier windows counts so much less at each.
const FADE: f64 = 0.97;
/// Windows from which something can be said: three, less what has faded.
const FEWEST: f64 = 2.9;
/// Standard errors over which it is proved that a target does less in windows; and so many times more of them where there was one window only, as an
/// error that comes from few windows is not well known.
const SURE: f64 = 3.0;
const FEW: f64 = 8.0;
/// Another measure is used if events in windows follow it so much more closely; unless what is expected is right to this relative standard error.
const CLOSER: f64 = 0.5;
const CLOSE: f64 = 0.01;

/// Sums over windows: of one measure of work, and of time, ns.
#[derive(Clone, Copy, Debug, Default)]
struct Measure {
    windows: f64,
    /// Over all: work and time.
    whole: f64,
    elapsed: f64,
    /// In windows; and sums of squares and products.
    inside: f64,
    open: f64,
    inside_squared: f64,
    open_squared: f64,
    inside_open: f64,
}

/// Sums over the same windows, of events of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    count: f64,
    squared: f64,
    with_time: f64,
    with: [f64; Work::COUNTS],
}

impl Events {
    /// Adds what a window saw.
    pub fn note(&mut self, count: f64, interval: &Interval) {
        let fade = |sum: &mut f64, more: f64| *sum = FADE * *sum + more;
        fade(&mut self.count, count);
        fade(&mut self.squared, count * count);
        fade(&mut self.with_time, count * interval.open);
        for (sum, inside) in self.with.iter_mut().zip(interval.open_work.counts()) {
            fade(sum, count * inside.unwrap_or_default());
        }
    }

    /// How many there were in the last windows.
    pub fn count(&self) -> f64 {
        self.count
    }
}

impl Measure {
    fn note(&mut self, (whole, inside): (f64, f64), interval: &Interval) {
        let Interval { elapsed, open, .. } = *interval;
        for (sum, more) in [
            (&mut self.windows, 1.0),
            (&mut self.whole, whole),
            (&mut self.elapsed, elapsed),
            (&mut self.inside, inside),
            (&mut self.open, open),
            (&mut self.inside_squared, inside * inside),
            (&mut self.open_squared, open * open),
            (&mut self.inside_open, inside * open),
        ] {
            *sum = FADE * *sum + more;
        }
    }

    fn is_known(&self) -> bool {
        self.windows >= FEWEST && self.whole > 0.0 && self.inside > 0.0
    }

    /// Work in a time of windows, divided by that in the same time over all.
    fn share(&self) -> f64 {
        (self.inside / self.open) / (self.whole / self.elapsed)
    }

    /// The standard error of that.
    fn error(&self) -> f64 {
        let squares = (self.inside_squared, self.inside_open, self.open_squared);
        self.share() * self.relative_error((self.inside, self.open), squares)
    }

    /// Whether it is proved that the target does less in windows.
    fn is_less_in_windows(&self) -> bool {
        let sure = SURE * (1.0 + FEW / (self.windows - 1.0).max(1.0));
        self.is_known() && self.share() + sure * self.error() < 1.0
    }

    /// The relative standard error of a ratio of `sums` over windows (Cochran, Sampling Techniques, 1977, 6.4), from the sums of squares and products.
    fn relative_error(&self, sums: (f64, f64), squares: (f64, f64, f64)) -> f64 {
        let ratio = sums.0 / sums.1;
        let residuals = squares.0 - 2.0 * ratio * squares.1 + ratio * ratio * squares.2;
        (residuals.max(0.0) * self.windows / (self.windows - 1.0)).sqrt() / sums.0.max(f64::MIN_POSITIVE)
    }
}

/// What windows of one plane of one target showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    /// In the order of [`Work::counts`].
    measures: [Measure; Work::COUNTS],
}

impl Amount {
    /// Adds a window. A measure that is not known any more says nothing about the others either.
    pub fn note(&mut self, interval: &Interval) {
        let both = interval.work.counts().into_iter().zip(interval.open_work.counts());
        for (measure, both) in self.measures.iter_mut().zip(both) {
            match both {
                (Some(whole), Some(inside)) => measure.note((whole, inside), interval),
                _ => *measure = Measure::default(),
            }
        }
    }

    fn known(&self) -> impl Iterator<Item = usize> {
        (0..Work::COUNTS).filter(|at| self.measures[*at].is_known())
    }

    /// The relative standard error of the number of events, if it is as much for the same work, or as much in the same time.
    pub fn error(&self, events: &Events, of: Option<usize>) -> f64 {
        match of {
            Some(at) => {
                let measure = &self.measures[at];
                let squares = (events.squared, events.with[at], measure.inside_squared);
                measure.relative_error((events.count, measure.inside), squares)
            }
            // All that are known have the same windows.
            None => self.known().next().map_or(0.0, |at| {
                let measure = &self.measures[at];
                let squares = (events.squared, events.with_time, measure.open_squared);
                measure.relative_error((events.count, measure.open), squares)
            }),
        }
    }

    /// Which measure, by its number in [`Work::counts`], events of one kind follow most closely; None for time. It is the one that is `expected`, unless
    /// another one is much closer. Time is none if it is proved that the target does less in windows.
    pub fn followed(&self, events: &Events, expected: Option<usize>) -> Option<usize> {
        let error = |of: Option<usize>| self.error(events, of);
        let less = self.known().any(|at| self.measures[at].is_less_in_windows());
        let time = (!less).then_some(None);
        let all = self.known().map(Some).chain(time).map(|of| (of, error(of)));
        let Some((closest, least)) = all.min_by(|(_, one), (_, other)| one.total_cmp(other)) else {
            return expected;
        };
        match expected {
            Some(at) if !self.measures[at].is_known() => return expected,
            None if less => return closest,
            _ => {}
        }
        let of_expected = error(expected);
        if of_expected > CLOSE && least < CLOSER * of_expected {
            closest
        } else {
            expected
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTS: Option<usize> = Some(super::super::work::STARTS);
    const MOVED: Option<usize> = Some(super::super::work::MOVED);

    fn work(starts: f64, moved: f64) -> Work {
        Work {
            starts: Some(starts),
            moved: Some(moved),
            ..Work::default()
        }
    }

    /// What is followed after `windows` of 50 ms in a second, in each of which there were so many starts, calls and events; in a second there are 20 times
    /// the mean of starts, `slower` times.
    fn followed(windows: usize, slower: f64, expected: Option<usize>, of: fn(f64) -> (f64, f64, f64)) -> Option<usize> {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut amount, mut events) = (Amount::default(), Events::default());
        for _ in 0..windows {
            let (starts, moved, count) = of(random.f64());
            let interval = Interval {
                elapsed: 1e9,
                work: work(20.0 * slower * of(0.5).0, 20.0 * slower * of(0.5).1),
                open: 5e7,
                open_work: work(starts, moved),
                bounded: true,
            };
            amount.note(&interval);
            events.note(count, &interval);
        }
        amount.followed(&events, expected)
    }

    #[test]
    fn the_measure_that_events_follow_is_used() {
        // Bursts of starts.
        let steady = |random: f64| (100.0 + 900.0 * random, 200.0, 50.0);
        let with_starts = |random: f64| (100.0 + 900.0 * random, 200.0, 10.0 + 90.0 * random);
        // A load that varies.
        let with_moved = |random: f64| (500.0, 100.0 + 900.0 * random, 10.0 + 90.0 * random);
        let alike = |random: f64| (490.0 + 20.0 * random, 200.0, 50.0);
        for (of, expected, found) in [
            (steady as fn(f64) -> _, None, None),
            (with_starts, None, STARTS),
            (with_moved, None, MOVED),
            (with_moved, STARTS, MOVED),
            (alike, None, None),
        ] {
            assert_eq!(followed(30, 1.0, expected, of), found);
        }
        // Calls are as steady as time is.
        assert!(followed(30, 1.0, STARTS, steady) != STARTS);
    }

    #[test]
    fn what_is_expected_stands_until_something_is_known() {
        let with_moved = |random: f64| (500.0, 100.0 + 900.0 * random, 10.0 + 90.0 * random);
        for expected in [None, STARTS] {
            assert_eq!(followed(2, 1.0, expected, with_moved), expected);
            assert_eq!(Amount::default().followed(&Events::default(), expected), expected);
        }
    }

    #[test]
    fn time_is_not_used_where_a_target_does_less_in_windows() {
        let alike = |random: f64| (490.0 + 20.0 * random, 196.0 + 8.0 * random, 50.0);
        for (slower, is_time) in [(1.0, true), (1.02, true), (1.5, false), (30.0, false)] {
            assert_eq!(followed(10, slower, None, alike).is_none(), is_time, "{slower}");
        }
    }

    #[test]
    fn a_measure_that_is_lost_says_nothing_any_more() {
        let interval = Interval {
            elapsed: 1e9,
            work: work(1000.0, 1000.0),
            open: 1e8,
            open_work: work(10.0, 10.0),
            bounded: true,
        };
        let (mut amount, mut events) = (Amount::default(), Events::default());
        for _ in 0..9 {
            amount.note(&interval);
            events.note(10.0, &interval);
        }
        assert!(amount.followed(&events, None).is_some());
        amount.note(&Interval {
            work: Work::default(),
            ..interval
        });
        events.note(10.0, &interval);
        assert_eq!(amount.followed(&events, None), None);
    }
}
