//! The cost of a program from samples of the kernel's statistics, as soon as there are enough runs.

/// Runs that make a reliable mean, and runs from which the mean is better than the assumed cost.
pub const ENOUGH: u64 = 50;
const SOME: u64 = 10;

/// Runs of a kind's programs so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// ns.
    pub time: f64,
    pub count: u64,
}

/// Runs of a kind for targets that are not in its cost yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    runs: Runs,
    /// Whether its cost is a measured one.
    known: bool,
}

impl Seen {
    /// Whether its cost is measured, at least from some runs.
    pub fn is_near(&self) -> bool {
        self.known || self.runs.count >= SOME
    }

    /// Adds a sample: `count` runs took `time` in all, ns. At low rates a mean needs several samples.
    pub fn add(&mut self, time: f64, count: u64, cost: &mut f64) {
        let runs = &mut self.runs;
        (runs.time, runs.count) = (runs.time + time, runs.count + count);
        let mean = runs.time / runs.count as f64;
        if !self.known && runs.count >= SOME {
            *cost = mean;
        } else if self.known && runs.count >= ENOUGH {
            // The mean of both: one unusual second does not change the cost too much.
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
