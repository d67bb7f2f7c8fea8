//! What is requested when: a pure function from a request's number.

use std::time::Duration;

use crate::target::Target;

pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    pub(crate) rate: f64,
    /// Zero: until stopped.
    pub(crate) duration: Duration,
    keys: u64,
    /// One round of the mix: which target, and the how-manieth of this target in the round.
    round: Vec<(usize, u32)>,
}

/// One request of the plan.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// Index into the plan's targets.
    pub(crate) target: usize,
    /// What `{n}` becomes.
    pub(crate) n: u64,
}

impl Plan {
    pub(crate) fn new(targets: Vec<Target>, keys: u64, rate: f64, duration: Duration) -> Plan {
        let weights: Vec<u32> = targets.iter().map(|target| target.weight).collect();
        Plan {
            round: round(&weights),
            targets,
            rate,
            duration,
            keys,
        }
    }

    pub(crate) fn request(&self, number: u64) -> Request {
        let length = self.round.len() as u64;
        let (target, nth) = self.round[(number % length) as usize];
        let of_target = number / length * u64::from(self.targets[target].weight) + u64::from(nth);
        Request {
            target,
            n: of_target % self.keys,
        }
    }

    /// When a request is due, in ns after the begin; none after the plan's end.
    pub(crate) fn due_ns(&self, number: u64) -> Option<u64> {
        // From the number, not by adding up, so that rounding doesn't drift.
        let due = if self.rate > 0.0 {
            (number as f64 * 1e9 / self.rate) as u64
        } else {
            0
        };
        (self.duration.is_zero() || u128::from(due) < self.duration.as_nanos()).then_some(due)
    }

    /// How many requests are due in the first `ns`.
    pub(crate) fn due_count(&self, ns: u64) -> u64 {
        (ns as f64 * self.rate / 1e9).ceil() as u64
    }
}

/// Spreads the targets over a round as evenly as their weights allow (smooth weighted round robin).
fn round(weights: &[u32]) -> Vec<(usize, u32)> {
    let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
    let mut credit = vec![0i64; weights.len()];
    let mut taken = vec![0u32; weights.len()];
    let mut round = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += i64::from(*weight);
        }
        // On a tie, the first.
        let richest = (0..credit.len())
            .rev()
            .max_by_key(|i| credit[*i])
            .expect("there are targets");
        credit[richest] -= total;
        round.push((richest, taken[richest]));
        taken[richest] += 1;
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_and_spread() {
        let check = |weights: &[u32], expected: &[usize]| {
            let order: Vec<usize> = round(weights).iter().map(|(target, _)| *target).collect();
            assert_eq!(order, expected, "{weights:?}");
        };
        check(&[1], &[0]);
        check(&[1, 1], &[0, 1]);
        check(&[3, 1], &[0, 0, 1, 0]);
        check(&[1, 2], &[1, 0, 1]);
    }

    #[test]
    fn each_target_counts_through_all_keys() {
        let targets = ["2:http://a/{n}", "1:http://b/{n}"].map(|url| url.parse().unwrap());
        let plan = Plan::new(targets.to_vec(), 3, 100.0, Duration::from_secs(1));
        let of = |target| {
            let all = (0..9).map(|number| plan.request(number));
            all.filter(|r| r.target == target).map(|r| r.n).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [0, 1, 2, 0, 1, 2]);
        assert_eq!(of(1), [0, 1, 2]);
        assert_eq!(plan.due_ns(99), Some(990_000_000));
        assert_eq!(plan.due_ns(100), None);
    }
}
