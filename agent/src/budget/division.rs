//! Divides the budget between the planes of a target, and between the targets of a host, by the benefit that the last windows showed. Pure.
//!
//! The runtimes' probes show why a goroutine or a task that could run did not. So their benefit at a target is how many of them
//! were waiting to run, on average, for each core that the target keeps busy. The probes' part of the target's budget grows with it, and so does the target's
//! part of the host's.

/// Least share of a target's budget for the probes, whatever the hooks cost: without it their benefit would not be known.
const LEAST: f64 = 0.25;
/// Largest share for the probes, whatever their benefit: the rest is for the hooks.
const MOST: f64 = 0.75;

/// The benefit of the probes of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Benefit {
    /// Ready goroutines or tasks for each busy core; None before the first window.
    waiting: Option<f64>,
}

impl Benefit {
    /// A window showed that `waiting` of them were ready and did not run, on average, while the target kept `cores` busy. The last window
    /// has half of the weight.
    pub fn note(&mut self, waiting: f64, cores: f64) {
        /// Lower bound of `cores`, for idle targets.
        const IDLE: f64 = 0.01;
        let told = waiting / cores.max(IDLE);
        self.waiting = Some(self.waiting.map_or(told, |before| f64::midpoint(before, told)));
    }

    /// 0 for no benefit, to 1.
    fn share(self) -> f64 {
        self.waiting.map_or(0.0, |waiting| waiting / (1.0 + waiting))
    }

    /// The share of the target's budget that is kept for the probes.
    pub fn reserved(self) -> f64 {
        LEAST + (MOST - LEAST) * self.share()
    }

    /// Weight in the host's budget, relative to a target without benefit.
    pub fn weight(self) -> f64 {
        1.0 + self.share()
    }
}

/// What one target's limits allow it, cores, and its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    pub cores: f64,
    pub weight: f64,
}

/// The share of its limits that each target may use when all together may cost `host` cores: by demand and weight; what one does not need
/// is given to the others.
pub fn shares(demands: &[Demand], host: f64) -> Vec<f64> {
    let mut shares = vec![1.0; demands.len()];
    let mut open: Vec<usize> = (0..demands.len()).filter(|at| demands[*at].cores > 0.0).collect();
    let mut left = host.max(0.0);
    // Each round settles one target at least.
    while open.iter().map(|at| demands[*at].cores).sum::<f64>() > left {
        let weights: f64 = open.iter().map(|at| demands[*at].cores * demands[*at].weight).sum();
        let share = |at: usize| left * demands[at].weight / weights;
        let (whole, part): (Vec<usize>, Vec<usize>) = open.iter().partition(|at| share(**at) >= 1.0);
        if whole.is_empty() {
            for at in part {
                shares[at] = share(at);
            }
            break;
        }
        left -= whole.iter().map(|at| demands[*at].cores).sum::<f64>();
        open = part;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_waits_the_more_is_kept_for_the_probes() {
        let reserved = |told: &[(f64, f64)]| {
            let mut benefit = Benefit::default();
            told.iter().for_each(|(waiting, cores)| benefit.note(*waiting, *cores));
            benefit.reserved()
        };
        assert_eq!(reserved(&[]), LEAST);
        assert_eq!(reserved(&[(0.0, 2.0)]), LEAST);
        assert_eq!(reserved(&[(2.0, 2.0)]), 0.5);
        assert!(reserved(&[(1e9, 0.0)]) <= MOST);
        // The last window counts as much as all before it.
        assert_eq!(reserved(&[(4.0, 2.0), (0.0, 2.0)]), 0.5);
        let rising = [0.0, 0.1, 1.0, 10.0].map(|waiting| reserved(&[(waiting, 1.0)]));
        assert!(rising.is_sorted(), "{rising:?}");
    }

    #[test]
    fn a_host_s_budget_goes_by_claim_and_weight() {
        let check = |demands: &[(f64, f64)], host: f64, expected: &[f64]| {
            let demands: Vec<Demand> = demands
                .iter()
                .map(|(cores, weight)| Demand {
                    cores: *cores,
                    weight: *weight,
                })
                .collect();
            let found = shares(&demands, host);
            let near = found
                .iter()
                .zip(expected)
                .all(|(one, other)| (one - other).abs() < 1e-9);
            assert!(near && found.len() == expected.len(), "{demands:?} {host}: {found:?}");
        };
        check(&[], 1.0, &[]);
        // There is enough.
        check(&[(0.1, 1.0), (0.2, 2.0)], 0.3, &[1.0, 1.0]);
        // Short, and alike: all alike.
        check(&[(0.1, 1.0), (0.3, 1.0)], 0.2, &[0.5, 0.5]);
        check(&[(0.1, 2.0), (0.1, 1.0)], 0.15, &[1.0, 0.5]);
        check(&[(0.1, 2.0), (0.1, 1.0)], 0.09, &[0.6, 0.3]);
        // What the first does not need is the others'.
        check(&[(0.1, 9.0), (0.1, 1.0), (0.1, 1.0)], 0.2, &[1.0, 0.5, 0.5]);
        check(&[(0.0, 1.0), (0.1, 1.0)], 0.05, &[1.0, 0.5]);
        check(&[(0.1, 1.0)], 0.0, &[0.0]);
    }

    #[test]
    fn a_host_s_budget_is_never_overrun_and_never_left() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2000 {
            let demand = |random: &mut fastrand::Rng| Demand {
                cores: random.f64() * 0.1,
                weight: 1.0 + random.f64(),
            };
            let demands: Vec<Demand> = (0..random.usize(1..20)).map(|_| demand(&mut random)).collect();
            let (host, wanted) = (random.f64(), demands.iter().map(|demand| demand.cores).sum::<f64>());
            let shares = shares(&demands, host);
            let given: f64 = shares
                .iter()
                .zip(&demands)
                .map(|(share, demand)| share * demand.cores)
                .sum();
            assert!((given - host.min(wanted)).abs() < 1e-9, "{demands:?} {host}: {given}");
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
        }
    }
}
