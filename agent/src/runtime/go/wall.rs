//! What many looks at some goroutines together say: wall time by what goroutines were started with and
//! what they do, with its variance.

use std::{collections::HashMap, time::Duration};

use super::{
    Looked,
    walk::{Seen, State},
};

/// Goroutines that a look sees where there are more, and the fewest.
const GOAL: f64 = 300.0;
const FEWEST: f64 = 32.0;
/// Entries of the runtime's table that a look reads to find its goroutines among the dead, at most.
const ENTRIES: f64 = 4096.0;

/// What a goroutine was started with, as a run-time address, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category {
    pub startpc: u64,
    pub state: State,
    /// A runtime.waitReason.
    pub reason: u32,
}

impl From<&Seen> for Category {
    fn from(seen: &Seen) -> Self {
        Self {
            startpc: seen.startpc,
            state: seen.state,
            reason: seen.reason,
        }
    }
}

/// How many goroutines a look sees.
#[derive(Debug)]
pub struct LookSize {
    goal: f64,
    /// Of the entries, those of goroutines that live.
    alive: f64,
}

impl Default for LookSize {
    fn default() -> Self {
        Self { goal: GOAL, alive: 1.0 }
    }
}

impl LookSize {
    /// Entries of the runtime's table to look at.
    pub fn entries(&self) -> usize {
        (self.goal / self.alive).min(ENTRIES) as usize
    }

    /// Takes note of what a look found, of the CPU time that it took, and of what it may take.
    pub fn note(&mut self, looked: &Looked, found: usize, cpu: Duration, most: Duration) {
        let alive = found as f64 / looked.looked_at.max(1) as f64;
        self.alive = (0.8 * self.alive + 0.2 * alive).max(GOAL / ENTRIES);
        let fits = most.as_secs_f64() / cpu.as_secs_f64().max(1e-6);
        self.goal = (self.goal * fits.clamp(0.5, 1.2)).clamp(FEWEST, GOAL);
    }
}

/// Wall time of goroutines, and its variance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WallTime {
    /// ns.
    pub time: f64,
    /// ns².
    pub variance: f64,
}

/// Sums over looks. A look's time is that since the one before, times what it saw.
#[derive(Debug, Default)]
pub struct WallSums {
    sums: HashMap<Category, WallTime>,
    /// Each category's part of the goroutines, as the last look saw them.
    before: HashMap<Category, f64>,
}

impl WallSums {
    /// Takes note of a look, `span` ns after the one before. Each goroutine that it saw stands for `weight` of them.
    pub fn note(&mut self, seen: &[Seen], weight: f64, span: f64) {
        let mut now: HashMap<Category, f64> = HashMap::new();
        for seen in seen {
            *now.entry(seen.into()).or_default() += 1.0;
        }
        let count = seen.len().max(1) as f64;
        let whole = count * weight * span;
        for part in now.values_mut() {
            *part /= count;
        }
        for (category, part) in &now {
            let before = self.before.remove(category).unwrap_or(0.0);
            let sum = self.sums.entry(*category).or_default();
            sum.time += part * whole;
            sum.variance += variance(part - before, whole);
        }
        // These were there before, and are not now.
        for (category, before) in self.before.drain() {
            self.sums.entry(category).or_default().variance += variance(before, whole);
        }
        self.before = now;
    }

    /// What came since this was last asked.
    pub fn take(&mut self) -> HashMap<Category, WallTime> {
        std::mem::take(&mut self.sums)
    }
}

/// What a look adds to the variance of a category's time: half of the square of what its part differs from that of the look before. Looks
/// that are nearer to each other than states change differ by less, and err by less (successive differences: Wolter, Introduction to
/// Variance Estimation, 2007, chapter 8).
fn variance(difference: f64, whole: f64) -> f64 {
    0.5 * (difference * whole).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(startpc: u64) -> Seen {
        Seen {
            goid: 1,
            startpc,
            gopc: 0,
            state: State::Waiting,
            reason: 2,
        }
    }

    #[test]
    fn what_stands_still_has_no_error() {
        let mut sums = WallSums::default();
        let all: Vec<Seen> = (0..10)
            .map(|number| seen(if number < 6 { 0x10 } else { 0x20 }))
            .collect();
        for span in [10e6, 20e6, 15e6] {
            sums.note(&all, 2.0, span);
        }
        let found = sums.take();
        assert!((found[&(&seen(0x10)).into()].time - 12.0 * 45e6).abs() < 1.0);
        // All but the first look, before which nothing was known.
        sums.note(&all, 2.0, 10e6);
        let found = sums.take();
        assert_eq!(found[&(&seen(0x20)).into()].variance, 0.0);
        assert!((found[&(&seen(0x20)).into()].time - 8.0 * 10e6).abs() < 1.0);
    }

    /// Looks at 50 of 1000, of which 300 are of one origin: the error that is told is the one that is made.
    #[test]
    fn the_error_is_that_of_the_time() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut squares, mut told) = (0.0, 0.0);
        const RUNS: usize = 200;
        for _ in 0..RUNS {
            let mut sums = WallSums::default();
            for look in 0..41 {
                let picked = random.choose_multiple(0..1000, 50);
                let all: Vec<Seen> = picked
                    .into_iter()
                    .map(|at| seen(if at < 300 { 0x10 } else { 0x20 }))
                    .collect();
                sums.note(&all, 20.0, 1e7);
                if look == 0 {
                    sums.take();
                }
            }
            let found = sums.take()[&(&seen(0x10)).into()];
            squares += (found.time - 300.0 * 40.0 * 1e7).powi(2);
            told += found.variance;
        }
        let ratio = (squares / told).sqrt();
        assert!((0.85..1.18).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_look_sees_fewer_where_it_takes_long() {
        let looked = Looked {
            entries: 100_000,
            looked_at: 300,
            ..Looked::default()
        };
        let most = Duration::from_micros(2500);
        let mut size = LookSize::default();
        assert_eq!(size.entries(), 300);
        for _ in 0..50 {
            size.note(&looked, 300, Duration::from_millis(10), most);
        }
        assert_eq!(size.entries(), FEWEST as usize);
        for _ in 0..50 {
            size.note(&looked, 300, Duration::from_micros(400), most);
        }
        assert_eq!(size.entries(), 300);
        // Nine of ten entries are of dead ones.
        for _ in 0..50 {
            size.note(&looked, 30, Duration::from_micros(400), most);
        }
        assert!((2_990..3_010).contains(&size.entries()), "{}", size.entries());
    }
}
