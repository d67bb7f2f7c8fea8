//! How much there was outside of windows: as much in the same time, or as much for the same work. Pure.
//!
//! A target that is observed may do less: in a window of the probes, two goroutines that only wake each other do so thirty times less often. And what it does
//! may come in bursts that windows meet by chance. What is always counted, inside of windows and over the whole time, tells both.

use super::Work;

/// What was seen of earlier windows counts so much less at each.
const FADE: f64 = 0.97;
/// Windows from which something can be said: three, less what has faded.
const FEWEST: f64 = 2.9;
/// Standard errors over which it is proved that a target does less in windows; and so many times more of them where there was one window only, as an
/// error that comes from few windows is not well known.
const SURE: f64 = 3.0;
const FEW: f64 = 8.0;
/// A measure of work is used if events in windows follow it so much more closely than they follow time.
const CLOSER: f64 = 0.7;

/// Sums over windows: of one measure of work, of time, ns, and of events.
#[derive(Clone, Copy, Debug, Default)]
struct Measure {
    windows: f64,
    /// Over all: work and time.
    whole: f64,
    elapsed: f64,
    /// In windows; and sums of squares and products.
    inside: f64,
    open: f64,
    events: f64,
    inside_squared: f64,
    open_squared: f64,
    events_squared: f64,
    inside_open: f64,
    events_inside: f64,
    events_open: f64,
}

/// A window.
#[derive(Clone, Copy, Debug)]
struct Window {
    whole: f64,
    elapsed: f64,
    inside: f64,
    open: f64,
    events: f64,
}

impl Measure {
    fn note(&mut self, window: Window) {
        let Window {
            whole,
            elapsed,
            inside,
            open,
            events,
        } = window;
        for (sum, more) in [
            (&mut self.windows, 1.0),
            (&mut self.whole, whole),
            (&mut self.elapsed, elapsed),
            (&mut self.inside, inside),
            (&mut self.open, open),
            (&mut self.events, events),
            (&mut self.inside_squared, inside * inside),
            (&mut self.open_squared, open * open),
            (&mut self.events_squared, events * events),
            (&mut self.inside_open, inside * open),
            (&mut self.events_inside, events * inside),
            (&mut self.events_open, events * open),
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

    /// Standard errors that are a proof.
    fn sure(&self) -> f64 {
        SURE * (1.0 + FEW / (self.windows - 1.0).max(1.0))
    }

    /// The relative standard errors of the number of events, if it is as much for the same work, and as much in the same time.
    fn errors_of_events(&self) -> (f64, f64) {
        let of_work = (self.events_squared, self.events_inside, self.inside_squared);
        let of_time = (self.events_squared, self.events_open, self.open_squared);
        (
            self.relative_error((self.events, self.inside), of_work),
            self.relative_error((self.events, self.open), of_time),
        )
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
    measures: [Measure; Work::COUNTS],
}

impl Amount {
    /// Adds a window that was `open` for so long in an interval of `elapsed`, ns, with the target's work in both, and what was counted in the window.
    pub fn note(&mut self, (whole, elapsed): (Work, f64), (inside, open): (Work, f64), events: u64) {
        let both = whole.counts().into_iter().zip(inside.counts());
        for (measure, both) in self.measures.iter_mut().zip(both) {
            match both {
                (Some(whole), Some(inside)) => measure.note(Window {
                    whole,
                    elapsed,
                    inside,
                    open,
                    events: events as f64,
                }),
                _ => *measure = Measure::default(),
            }
        }
    }

    /// How many times more there was outside of windows than in the same time inside: 1 unless it is proved that the target does less in windows, or
    /// events follow its work.
    pub fn factor(&self) -> f64 {
        let known = || self.measures.iter().filter(|measure| measure.is_known());
        let slower = known().filter(|measure| measure.share() + measure.sure() * measure.error() < 1.0);
        let surest = slower.min_by(|one, other| one.error().total_cmp(&other.error()));
        let closest = || {
            let errors = known().map(|measure| (measure, measure.errors_of_events()));
            let closer = errors.filter(|(_, (by_work, by_time))| *by_work < CLOSER * by_time);
            let closest = closer.min_by(|(_, (one, _)), (_, (other, _))| one.total_cmp(other));
            closest.map(|(measure, _)| measure)
        };
        surest.or_else(closest).map_or(1.0, |measure| 1.0 / measure.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(starts: f64) -> Work {
        Work {
            starts: Some(starts),
            ..Work::default()
        }
    }

    /// Intervals of a second with windows of 50 ms each: `rate` starts of goroutines a second, of which bursts have a part; in windows the target is
    /// `slower`. Events are a third of the starts. Returns the estimate of all events relative to their number, and the same by time alone.
    fn estimates(bursts: f64, slower: f64, windows: usize, seed: u64) -> (f64, f64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut amount, mut inside_all, mut whole_all) = (Amount::default(), 0.0, 0.0);
        let rate = 1e5;
        for _ in 0..windows {
            // In each of twenty pieces of 50 ms, one of which is the window.
            let mut piece = || {
                let is_burst = random.u32(0..20) == 0;
                let burst = if is_burst { bursts * rate } else { 0.0 };
                (1.0 - bursts) * rate / 20.0 * (0.9 + 0.2 * random.f64()) + burst
            };
            let inside = piece() / slower;
            let whole = inside + (1..20).map(|_| piece()).sum::<f64>();
            amount.note((starts(whole), 1e9), (starts(inside), 5e7), (inside / 3.0) as u64);
            inside_all += inside;
            whole_all += whole;
        }
        let by_time = 20.0 * inside_all / whole_all;
        (by_time * amount.factor(), by_time)
    }

    #[test]
    fn a_target_that_does_less_in_windows_is_corrected() {
        for seed in 0..100 {
            for slower in [1.5, 3.0, 30.0] {
                let (found, by_time) = estimates(0.0, slower, 10, seed);
                assert!((found - 1.0).abs() < 0.05, "seed {seed}: {slower}, found {found}");
                assert!(by_time < 0.75);
            }
        }
    }

    /// Most windows miss the bursts, in which half of all comes, and a few have much of them.
    #[test]
    fn bursts_are_weighed_by_what_is_always_counted() {
        let worst = |of: fn((f64, f64)) -> f64| {
            let errors = (0..100).map(|seed| (of(estimates(0.5, 1.0, 30, seed)) - 1.0).abs());
            errors.fold(0.0, f64::max)
        };
        let (corrected, by_time) = (worst(|(found, _)| found), worst(|(_, by_time)| by_time));
        assert!(corrected < 0.3 && by_time > 0.9, "{corrected} {by_time}");
    }

    #[test]
    fn nothing_is_corrected_without_a_reason() {
        assert_eq!(Amount::default().factor(), 1.0);
        let (found, by_time) = estimates(0.0, 3.0, 2, 1);
        assert_eq!(found, by_time);
        // Starts vary from window to window, and events do not follow them.
        let mut amount = Amount::default();
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..50 {
            let inside = 100.0 + 900.0 * random.f64();
            amount.note((starts(11_000.0), 1e9), (starts(inside), 5e7), 1000);
        }
        assert_eq!(amount.factor(), 1.0);
    }

    #[test]
    fn a_measure_that_is_lost_says_nothing_any_more() {
        let mut amount = Amount::default();
        for _ in 0..9 {
            amount.note((starts(1000.0), 1e9), (starts(10.0), 1e8), 10);
        }
        assert!((amount.factor() - 10.0).abs() < 1e-9);
        amount.note((Work::default(), 1e9), (Work::default(), 1e8), 10);
        assert_eq!(amount.factor(), 1.0);
    }
}
