//! What samples of the kernel's statistics show of a program: its cost, as soon as there are enough runs.

/// Runs that make a mean worth believing, and those of which it is nearer than an assumption.
pub const ENOUGH: u64 = 50;
const SOME: u64 = 10;

/// What a kind's programs ran so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// ns.
    pub time: f64,
    pub count: u64,
}

/// Own runs of a kind that are not in its cost yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    runs: Runs,
    /// Whether its cost is a measured one.
    known: bool,
}

impl Seen {
    /// Whether its cost is measured, if only from some runs.
    pub fn is_near(&self) -> bool {
        self.known || self.runs.count >= SOME
    }

    /// A sample showed so many runs, which took this long in all, ns. At low rates it takes some samples to make a mean: each counts.
    pub fn add(&mut self, time: f64, count: u64, cost: &mut f64) {
        let runs = &mut self.runs;
        (runs.time, runs.count) = (runs.time + time, runs.count + count);
        let mean = runs.time / runs.count as f64;
        if !self.known && runs.count >= SOME {
            *cost = mean;
        } else if self.known && runs.count >= ENOUGH {
            // Halfway: one odd second does not turn everything.
            *cost = (*cost + mean) / 2.0;
        }
        if runs.count >= ENOUGH {
            *self = Self {
                known: true,
                ..Self::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSUMED: f64 = 300.0;

    #[test]
    fn a_cost_is_learnt_from_few_runs_and_from_many() {
        #[track_caller]
        fn check(samples: &[(f64, u64)], expected: (f64, bool)) {
            let (mut seen, mut cost) = (Seen::default(), ASSUMED);
            for (each, count) in samples {
                seen.add(each * *count as f64, *count, &mut cost);
            }
            assert_eq!((cost, seen.is_near()), expected, "{samples:?}");
        }
        check(&[(2_000.0, 9)], (ASSUMED, false));
        check(&[(2_000.0, 10)], (2_000.0, true));
        check(&[(1_000.0, 15), (2_000.0, 15)], (1_500.0, true));
        check(&[(1_000.0, 25), (2_000.0, 25)], (1_500.0, true));
        check(&[(1_000.0, 50), (2_000.0, 49)], (1_000.0, true));
        // At a low rate a cost that is known follows the load, too.
        check(&[(1_000.0, 50), (2_000.0, 49), (2_000.0, 1)], (1_500.0, true));
        check(&[(1_000.0, 50), (2_000.0, 500), (2_500.0, 50)], (2_000.0, true));
    }
}
