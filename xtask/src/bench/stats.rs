//! Medians of ratios and how sure they are.

/// Resamplings of a bootstrap.
const RESAMPLINGS: usize = 4000;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The median of `values`, and the 2.5th and 97.5th percentile of the medians of resamplings (percentile bootstrap). The
/// same values give the same interval.
pub(super) fn estimate(values: &[f64]) -> Estimate {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut medians: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| {
            let mut drawn: Vec<f64> = values.iter().map(|_| values[draw(&mut random, values.len())]).collect();
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Estimate {
        median: median(&mut values.to_vec()),
        low: medians[RESAMPLINGS / 40],
        high: medians[RESAMPLINGS - 1 - RESAMPLINGS / 40],
    }
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
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
    }

    #[test]
    fn an_interval_holds_its_median_and_narrows_with_more_values() {
        let few = estimate(&[1.0, 1.1, 1.2]);
        assert!(few.low <= few.median && few.median <= few.high);
        let many: Vec<f64> = (0..90).map(|n| 1.0 + f64::from(n % 3) / 10.0).collect();
        let many = estimate(&many);
        assert!(many.high - many.low < few.high - few.low, "{many:?} {few:?}");
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        let one = estimate(&[1.5; 5]);
        assert_eq!((one.low, one.median, one.high), (1.5, 1.5, 1.5));
    }
}
