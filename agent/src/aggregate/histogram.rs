//! A log-linear histogram as the kernel keeps it, and its forms for people and for OTLP.

use std::collections::BTreeMap;

use agent_common::histogram::{Bucket, bounds_of};

/// Scale of the exponential histograms that leave: 2^(2^-4), so a bucket is 4.4 % wide.
pub const SCALE: i32 = 4;

/// Counts and sums by bucket index; values in ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: BTreeMap<u16, Bucket>,
}

/// The parts of an OTLP exponential histogram, values in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    pub zero_count: u64,
    /// Index of the first bucket of `counts`.
    pub offset: i32,
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Adds a bucket as read from the kernel's map.
    pub fn add(&mut self, index: u16, bucket: Bucket) {
        let entry = self.buckets.entry(index).or_default();
        entry.count += bucket.count;
        entry.sum += bucket.sum;
    }

    /// Adds another histogram's values.
    pub fn merge(&mut self, other: &Self) {
        for (index, bucket) in &other.buckets {
            self.add(*index, *bucket);
        }
    }

    /// Each value so many times.
    pub fn times(mut self, times: u64) -> Self {
        for bucket in self.buckets.values_mut() {
            bucket.count *= times;
            bucket.sum *= times;
        }
        self
    }

    /// What came since `earlier`, an earlier reading of this histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets.clone();
        for (index, old) in &earlier.buckets {
            if let Some(bucket) = buckets.get_mut(index) {
                bucket.count = bucket.count.saturating_sub(old.count);
                bucket.sum = bucket.sum.saturating_sub(old.sum);
            }
        }
        buckets.retain(|_, bucket| bucket.count > 0);
        Self { buckets }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.values().map(|bucket| bucket.count).sum()
    }

    /// Exact sum, ns.
    pub fn sum(&self) -> u64 {
        self.buckets.values().map(|bucket| bucket.sum).sum()
    }

    /// Value at quantile `q` in 0..=1, ns: the mean of the bucket it falls into. None when empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        self.buckets.values().find_map(|bucket| {
            seen += bucket.count;
            (bucket.count > 0 && seen >= rank).then(|| bucket.sum / bucket.count)
        })
    }

    /// Bucket indices and contents in ascending order.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, Bucket)> {
        self.buckets.iter().map(|(index, bucket)| (*index, *bucket))
    }

    /// As an OTLP exponential histogram of [`SCALE`] in seconds. Each of the kernel's buckets goes whole where its middle
    /// belongs, so counts are exact and values are off by less than half of a kernel bucket (1.6 %).
    pub fn exponential(&self) -> Exponential {
        let mut zero_count = 0;
        let mut placed: BTreeMap<i32, u64> = BTreeMap::new();
        for (index, bucket) in self.buckets() {
            if bucket.count == 0 {
                continue;
            }
            let (low, high) = bounds_of(index);
            if low == 0 {
                zero_count += bucket.count;
                continue;
            }
            // Always the same place, whatever its values are: a cumulative count must not go back.
            let middle = (low + high - 1) as f64 / 2.0;
            // Bucket i holds (base^i, base^(i+1)] (OTel data model, exponential histogram).
            let position = (middle / 1e9).log2() * f64::from(1 << SCALE);
            *placed.entry(position.ceil() as i32 - 1).or_default() += bucket.count;
        }
        let offset = placed.first_key_value().map_or(0, |(first, _)| *first);
        let length = placed
            .last_key_value()
            .map_or(0, |(last, _)| (last - offset + 1) as usize);
        let mut counts = vec![0; length];
        for (index, count) in placed {
            counts[(index - offset) as usize] = count;
        }
        Exponential {
            zero_count,
            offset,
            counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::histogram::bucket_of;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.add(bucket_of(*value), Bucket { count: 1, sum: *value });
        }
        histogram
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let values: Vec<u64> = (1..=1000).map(|n| n * 1000).collect();
        let histogram = of(&values);
        for (q, expected) in [(0.5, 500_000), (0.9, 900_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let found = histogram.quantile(q).unwrap();
            assert!(found.abs_diff(expected) * 32 <= expected, "{q}: {found} for {expected}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn exponential_buckets_hold_every_value() {
        let values: Vec<u64> = (0..40).map(|power| 3u64 << power).collect();
        let exponential = of(&values).exponential();
        assert_eq!(exponential.counts.iter().sum::<u64>() + exponential.zero_count, 40);
        let base = 2f64.powf(1.0 / 16.0);
        let first = base.powi(exponential.offset);
        assert!(first < 3e-9 && 3e-9 <= first * base, "{first}");
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let before = of(&[5, 100, 100]);
        let mut after = before.clone();
        after.merge(&of(&[100, 7000]));
        let between = after.since(&before);
        assert_eq!((between.count(), between.sum()), (2, 7100));
    }
}
