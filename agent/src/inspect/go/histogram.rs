//! `runtime.timeHistogram`: where its counts are, and which durations they stand for.

use super::dwarf::FieldLoc;
use super::layouts::Layouts;
use super::offsets::missing;
use crate::inspect::InspectError;

/// `runtime.timeHistogram` (histogram.go): counts (u64 each), then what fell below and above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeHistogramOffsets {
    pub counts: FieldLoc,
    pub underflow: FieldLoc,
    /// Since go1.20; before that the last bucket takes all above it.
    pub overflow: Option<FieldLoc>,
    pub buckets: HistogramBuckets,
}

/// How durations are put into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistogramBuckets {
    /// Buckets below 2^this have the first bucket's width (timeHistMinBucketBits - 1; 4 + 0 before go1.20).
    pub min_bits: u32,
    /// log2 of the linear buckets in each power of two.
    pub sub_bits: u32,
    pub count: usize,
}

impl HistogramBuckets {
    /// Lower bounds of the `count` buckets and the upper bound of the last, in ns (histogram.go, timeHistogramMetricsBuckets).
    pub fn bounds_ns(&self) -> Vec<u64> {
        let sub = 1u64 << self.sub_bits;
        (0..=self.count as u64)
            .map(|i| {
                let (bucket, within) = (i >> self.sub_bits, i & (sub - 1));
                match bucket {
                    0 => within << (self.min_bits - self.sub_bits),
                    _ => {
                        let base = self.min_bits + bucket as u32 - 1;
                        (1 << base) + (within << (base - self.sub_bits))
                    }
                }
            })
            .collect()
    }
}

impl TimeHistogramOffsets {
    pub(super) fn read(types: &impl Layouts) -> Result<Self, InspectError> {
        let root = "runtime.timeHistogram";
        let need = |path: &str| types.field(root, path).ok_or_else(|| missing(root, path));
        let counts = need("counts")?;
        // The two layouts there were: go1.18–1.19 45 × 16, since go1.20 40 × 4 from 2^8 ns on.
        let (min_bits, sub_bits) = match (types.element_size(root, "counts"), counts.size) {
            (Some(8), 1280) => (8, 2),
            (Some(8), 5760) => (4, 4),
            _ => return Err(missing(root, "counts of a known dimension")),
        };
        let buckets = HistogramBuckets {
            min_bits,
            sub_bits,
            count: (counts.size / 8) as usize,
        };
        Ok(Self {
            counts,
            underflow: need("underflow")?,
            overflow: types.field(root, "overflow"),
            buckets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::HistogramBuckets;

    /// Against what runtime/metrics prints for /sched/latencies:seconds.
    #[test]
    fn bucket_bounds_are_the_runtimes() {
        let new = HistogramBuckets {
            min_bits: 8,
            sub_bits: 2,
            count: 160,
        }
        .bounds_ns();
        assert_eq!(new[..9], [0, 64, 128, 192, 256, 320, 384, 448, 512]);
        assert_eq!((new.len(), new[160]), (161, 1 << 47));
        let old = HistogramBuckets {
            min_bits: 4,
            sub_bits: 4,
            count: 720,
        }
        .bounds_ns();
        assert_eq!(old[14..20], [14, 15, 16, 17, 18, 19]);
        assert_eq!(old[32], 32);
        assert_eq!(old[720], 1 << 48);
    }
}
