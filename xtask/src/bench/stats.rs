//! Ratios of pairs: where they lie and how sure that is.

/// Resamplings of a bootstrap.
const RESAMPLINGS: usize = 4000;

/// A ratio with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Estimate {
    /// What was counted and not estimated.
    pub(super) fn exact(value: f64) -> Self {
        Self {
            value,
            low: value,
            high: value,
        }
    }

    pub(super) fn half_width(self) -> f64 {
        (self.high - self.low) / 2.0
    }

    pub(super) fn holds(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Hodges and Lehmann's estimate of `ratios`, made of their logarithms so that 2 and 1/2 weigh the same, and the 2.5th and
/// 97.5th percentile of that of resamplings (percentile bootstrap). The same values give the same interval; None without any.
pub(super) fn estimate(ratios: &[f64]) -> Option<Estimate> {
    if ratios.is_empty() {
        return None;
    }
    let mut logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    // What pairs came in which order must not matter.
    logs.sort_by(f64::total_cmp);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut drawn = logs.clone();
    let mut resampled: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| {
            drawn.fill_with(|| logs[draw(&mut random, logs.len())]);
            hodges_lehmann(&drawn)
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    Some(Estimate {
        value: hodges_lehmann(&logs).exp(),
        low: resampled[RESAMPLINGS / 40].exp(),
        high: resampled[RESAMPLINGS - 1 - RESAMPLINGS / 40].exp(),
    })
}

/// The median, of at least one value.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(values.len() / 2, f64::total_cmp);
    if odd {
        return *upper;
    }
    f64::midpoint(below.iter().copied().fold(f64::NEG_INFINITY, f64::max), *upper)
}

/// The median of all Walsh averages: of every two values, each with itself too.
fn hodges_lehmann(values: &[f64]) -> f64 {
    let mut averages: Vec<f64> = values
        .iter()
        .enumerate()
        .flat_map(|(at, one)| values[at..].iter().map(move |other| f64::midpoint(*one, *other)))
        .collect();
    median(&mut averages)
}

/// xorshift64*.
fn draw(state: &mut u64, bound: usize) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut [7.0]), 7.0);
    }

    #[track_caller]
    fn check(ratios: &[f64], expected: f64, within: f64) {
        let estimate = estimate(ratios).expect("there are ratios");
        assert!((estimate.value - expected).abs() <= within, "{estimate:?} {expected}");
        assert!(estimate.holds(estimate.value), "{estimate:?}");
    }

    #[test]
    fn estimates() {
        check(&[1.02; 8], 1.02, 1e-12);
        check(&[1.5], 1.5, 1e-12);
        // Twice and half as much make no difference together.
        check(&[2.0, 0.5], 1.0, 1e-12);
        check(&[1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0], 1.0, 0.002);
        // One wild pair does not move it, in whichever direction; the mean would be 2.1.
        check(&[1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0, 10.0], 1.0, 0.01);
        check(&[1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0, 0.1], 1.0, 0.01);
    }

    #[test]
    fn the_order_of_pairs_does_not_matter() {
        assert_eq!(estimate(&[1.0, 1.1, 1.3, 0.9]), estimate(&[1.3, 0.9, 1.1, 1.0]));
    }

    #[test]
    fn equal_values_leave_no_doubt_and_none_no_estimate() {
        assert!(estimate(&[1.5; 5]).is_some_and(|of| of.half_width() < 1e-12));
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn an_interval_narrows_with_more_values() {
        let ratios = |count: u32| (0..count).map(|n| 1.0 + f64::from(n % 4) / 10.0).collect::<Vec<_>>();
        let [few, more, many] =
            [4, 16, 64].map(|count| estimate(&ratios(count)).expect("there are ratios").half_width());
        assert!(few > more && more > many, "{few} {more} {many}");
    }
}
