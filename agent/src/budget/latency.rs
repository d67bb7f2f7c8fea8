//! Compares the requests that a target served inside and outside of windows: whether windows make its latency longer is measured on the live
//! service, not assumed. Pure.
//!
//! A request counts as inside if it ended in a window. So slow requests are neither more nor less likely to be inside than fast ones, and
//! without an effect of windows both have the same distribution.

use std::collections::BTreeMap;

use crate::aggregate::Histogram;

/// Share of requests over the 99th percentile.
const OVER: f64 = 0.01;
/// Requests outside of windows from which the percentile is known, and those inside from which it can be compared.
const OUTSIDE: f64 = 300.0;
const INSIDE: f64 = 50.0;
/// Standard errors over which a difference is proved. Slow requests come together: their number varies twice as much as that of independent ones.
const SURE: f64 = 3.0 * 2.0;
/// After this time what was seen has half its weight, s.
const HALF: f64 = 60.0;

/// Requests of the last minutes.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// Cumulative, as they were at the last reading: of all requests, and of those inside.
    all: Histogram,
    inside: Histogram,
    /// By bucket, of late.
    outside_of_late: BTreeMap<u16, f64>,
    inside_of_late: BTreeMap<u16, f64>,
}

impl Latency {
    /// Takes note of a reading `elapsed` s after the last: the latency of `all` requests, and of those `inside` windows, cumulative.
    pub fn note(&mut self, all: Histogram, inside: Histogram, elapsed: f64) {
        let weight = 0.5_f64.powf(elapsed / HALF);
        for count in self
            .outside_of_late
            .values_mut()
            .chain(self.inside_of_late.values_mut())
        {
            *count *= weight;
        }
        for (index, bucket) in all.since(&self.all).buckets() {
            *self.outside_of_late.entry(index).or_default() += bucket.count as f64;
        }
        for (index, bucket) in inside.since(&self.inside).buckets() {
            *self.inside_of_late.entry(index).or_default() += bucket.count as f64;
            *self.outside_of_late.entry(index).or_default() -= bucket.count as f64;
        }
        // What is counted meanwhile is in one of them only.
        self.outside_of_late.retain(|_, count| *count > 0.0);
        (self.all, self.inside) = (all, inside);
    }

    /// Whether there are enough requests to compare them.
    pub fn is_known(&self) -> bool {
        sum(&self.outside_of_late) >= OUTSIDE
    }

    /// How much longer the 99th percentile is inside than outside, 1 for as long; None where there are too few requests.
    pub fn ratio(&self) -> Option<f64> {
        let (inside, outside) = (sum(&self.inside_of_late), sum(&self.outside_of_late));
        if inside < 1.0 / OVER || outside < OUTSIDE {
            return None;
        }
        let of = |counts| middle(percentile(counts)?);
        Some(of(&self.inside_of_late)? / of(&self.outside_of_late)?)
    }

    /// The share of the requests inside that take longer than the 99th percentile because of the windows, as far as that is proved.
    pub fn excess(&self) -> f64 {
        let (inside, outside) = (sum(&self.inside_of_late), sum(&self.outside_of_late));
        let Some(at) = percentile(&self.outside_of_late).filter(|_| inside >= INSIDE) else {
            return 0.0;
        };
        let over = |counts: &BTreeMap<u16, f64>| counts.range(at + 1..).map(|(_, count)| count).sum::<f64>();
        let (of_inside, of_outside) = (
            over(&self.inside_of_late) / inside,
            over(&self.outside_of_late) / outside,
        );
        let variance = |share: f64, count: f64| (share * (1.0 - share)).max(OVER * (1.0 - OVER)) / count;
        let error = (variance(of_inside, inside) + variance(of_outside, outside)).sqrt();
        (of_inside - of_outside - SURE * error).max(0.0)
    }

    /// The share of the time that windows may take, when this share of all requests may take longer than the 99th percentile because of them; at
    /// most 1.
    pub fn share(&self, allowed: f64) -> f64 {
        let excess = self.excess();
        if allowed >= excess { 1.0 } else { allowed / excess }
    }
}

fn sum(counts: &BTreeMap<u16, f64>) -> f64 {
    counts.values().sum()
}

/// The bucket of the 99th percentile.
fn percentile(counts: &BTreeMap<u16, f64>) -> Option<u16> {
    let mut left = OVER * sum(counts);
    let mut from_longest = counts.iter().rev();
    let found = from_longest.find(|(_, count)| {
        left -= **count;
        left < 0.0
    });
    found.map(|(index, _)| *index)
}

/// The middle of a bucket, ns.
fn middle(index: u16) -> Option<f64> {
    let (low, high) = agent_common::histogram::bounds_of(index);
    let middle = (low as f64 + high as f64) / 2.0;
    (middle > 0.0).then_some(middle)
}

#[cfg(test)]
mod tests {
    use agent_common::histogram::{Bucket, bucket_of};

    use super::*;

    /// Requests a second for a minute, of which these shares end in windows and are `slower` there; what was told at the end.
    fn told(rate: u64, inside: f64, slower: f64, seed: u64) -> Latency {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut latency, mut all, mut of_inside) = (Latency::default(), Histogram::default(), Histogram::default());
        for _ in 0..60 {
            for _ in 0..rate {
                let mut sum = -1e6 * (1.0 - random.f64()).ln();
                let is_inside = random.f64() < inside;
                if is_inside {
                    sum *= slower;
                }
                let bucket = Bucket {
                    count: 1,
                    sum: sum as u64,
                };
                all.add(bucket_of(sum as u64), bucket);
                if is_inside {
                    of_inside.add(bucket_of(sum as u64), bucket);
                }
            }
            latency.note(all.clone(), of_inside.clone(), 1.0);
        }
        latency
    }

    #[test]
    fn windows_without_an_effect_are_not_held_back() {
        for seed in 0..200 {
            let latency = told(100, 0.05 + 0.2 * f64::from(seed as u32 % 2), 1.0, seed);
            assert!(latency.is_known());
            assert_eq!(latency.share(0.0009), 1.0, "seed {seed}: {}", latency.excess());
        }
    }

    #[test]
    fn windows_that_make_requests_slower_become_rare() {
        for seed in 0..20 {
            let (slow, slower) = (told(1000, 0.2, 1.5, seed), told(1000, 0.2, 4.0, seed));
            // Of exponential ones exp(-ln 100 / 1.5) are over the percentile then: 4.6 %, and 32 %.
            assert!((0.01..0.046).contains(&slow.excess()), "seed {seed}: {}", slow.excess());
            assert!(
                (0.25..0.33).contains(&slower.excess()),
                "seed {seed}: {}",
                slower.excess()
            );
            assert!(slower.share(0.0009) < 0.004 && slow.share(0.0009) < 0.09);
            let ratio = slow.ratio().unwrap();
            assert!((1.2..1.8).contains(&ratio), "seed {seed}: {ratio}");
        }
    }

    #[test]
    fn few_requests_say_nothing() {
        let none = Latency::default();
        assert!(!none.is_known() && none.ratio().is_none());
        assert_eq!((none.excess(), none.share(0.001)), (0.0, 1.0));
        let few = told(4, 0.02, 20.0, 3);
        assert_eq!((few.is_known(), few.ratio(), few.excess()), (false, None, 0.0));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut latency = told(1000, 0.2, 4.0, 1);
        let (all, inside) = (latency.all.clone(), latency.inside.clone());
        for _ in 0..20 {
            latency.note(all.clone(), inside.clone(), HALF);
        }
        assert!(!latency.is_known() && latency.excess() == 0.0);
    }
}
