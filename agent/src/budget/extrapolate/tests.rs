use agent_common::histogram::bucket_of;

use super::*;

const TARGET_ID: u32 = 3;

fn add(reading: &mut Reading, value: u64, count: u64) {
    let histogram = reading
        .histograms
        .entry((TARGET_ID, Series::GoRunnable as u16, 0))
        .or_default();
    histogram.add(
        bucket_of(value),
        Bucket {
            count,
            sum: value * count,
        },
    );
    *reading
        .counters
        .entry((TARGET_ID, Series::GoUnstamped as u16, 0))
        .or_default() += count;
}

fn extrapolated(extrapolator: &mut Extrapolator, reading: &Reading) -> Histogram {
    let mut reading = reading.clone();
    extrapolator.apply(&mut reading, TARGET_ID, 0.0);
    reading.whole(TARGET_ID, Series::GoRunnable)
}

#[test]
fn an_open_window_changes_nothing() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    for round in 1..50 {
        add(&mut reading, 1000 * round, round);
        let interval = Interval {
            elapsed: 1e9,
            cpu: 1e8,
            open: 1e9,
            bounded: false,
        };
        extrapolator.commit(&reading, TARGET_ID, interval);
        assert_eq!(
            extrapolated(&mut extrapolator, &reading),
            reading.whole(TARGET_ID, Series::GoRunnable)
        );
    }
    assert_eq!(extrapolator.times(), (49e9, 49e9));
}

#[test]
fn a_window_stands_for_its_interval() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    for (count, elapsed) in [(10, 4e9), (20, 1e9)] {
        add(&mut reading, 1000, count);
        let interval = Interval {
            elapsed,
            cpu: elapsed / 10.0,
            open: 1e9,
            bounded: false,
        };
        extrapolator.commit(&reading, TARGET_ID, interval);
    }
    let mut after = reading.clone();
    extrapolator.apply(&mut after, TARGET_ID, 0.0);
    assert_eq!(after.whole(TARGET_ID, Series::GoRunnable).count(), 60);
    assert_eq!(after.counter(TARGET_ID, Series::GoUnstamped), 60);
    assert_eq!(extrapolator.times(), (2e9, 5e9));
    // Other targets' figures, and those that do not depend on windows, stay.
    reading
        .histograms
        .insert((9, Series::GoRunnable as u16, 0), Histogram::default());
    reading
        .histograms
        .insert((TARGET_ID, Series::RunQueue as u16, 0), Histogram::default());
    extrapolator.apply(&mut reading, TARGET_ID, 0.0);
    assert_eq!(reading.histograms.len(), 3);
}

/// What a reading has of the runnable goroutines, `cpu` ns of the target's own CPU time after the last window.
fn count_after(extrapolator: &mut Extrapolator, reading: &Reading, cpu: f64) -> u64 {
    let mut reading = reading.clone();
    extrapolator.apply(&mut reading, TARGET_ID, cpu);
    let counter = reading.counter(TARGET_ID, Series::GoUnstamped);
    let count = reading.whole(TARGET_ID, Series::GoRunnable).count();
    assert_eq!(counter, count);
    count
}

#[test]
fn time_since_the_last_window_has_the_rate_of_the_last_windows() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    let interval = Interval {
        elapsed: 1e9,
        cpu: 1e8,
        open: 1e7,
        bounded: false,
    };
    add(&mut reading, 1000, 100);
    extrapolator.commit(&reading, TARGET_ID, interval);
    let mut after = |reading: &Reading, cpu: f64| count_after(&mut extrapolator, reading, cpu);
    let seen = after(&reading, 0.0);
    assert_eq!(seen, 10_000);
    // A target that does nothing gets nothing, one that is twice as busy twice as much.
    assert_eq!(after(&reading, 0.0), seen);
    assert_eq!(after(&reading, 1e8), 2 * seen);
    assert_eq!(after(&reading, 3e8), 4 * seen);
    // The load fell: what was reported stays until the windows have caught up.
    add(&mut reading, 1000, 100);
    let quiet = Interval {
        elapsed: 2e9,
        cpu: 1e6,
        ..interval
    };
    extrapolator.commit(&reading, TARGET_ID, quiet);
    assert_eq!(count_after(&mut extrapolator, &reading, 0.0), 4 * seen);
    for _ in 0..2 {
        add(&mut reading, 1000, 100);
        extrapolator.commit(&reading, TARGET_ID, interval);
    }
    assert_eq!(count_after(&mut extrapolator, &reading, 0.0), 5 * seen);
}

#[test]
fn quantiles_stay_in_order_when_counts_are_rounded() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    for value in [1000, 1900, 2500] {
        add(&mut reading, value, 1);
    }
    let interval = Interval {
        elapsed: 1.45e9,
        cpu: 1e8,
        open: 1e9,
        bounded: true,
    };
    extrapolator.commit(&reading, TARGET_ID, interval);
    let found = extrapolated(&mut extrapolator, &reading);
    for (index, bucket) in found.buckets() {
        let (low, high) = agent_common::histogram::bounds_of(index);
        let mean = bucket.sum / bucket.count;
        assert!((low..high).contains(&mean), "{mean} in {low}..{high}");
    }
}

/// Waits of three lengths begin at random; what windows of 100 ms in every second see is extrapolated.
#[test]
fn short_and_long_waits_are_counted_alike() {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    let lengths = [10_000u64, 20_000_000, 50_000_000];
    let (seconds, each) = (2000u64, 40);
    let mut waits: Vec<(u64, u64)> = Vec::new();
    for length in lengths {
        waits.extend((0..seconds * each).map(|_| (random.u64(0..seconds * 1_000_000_000), length)));
    }
    waits.sort_unstable();
    let mut next = 0;
    for second in 0..seconds {
        let (from, to) = (
            second * 1_000_000_000 + 400_000_000,
            second * 1_000_000_000 + 500_000_000,
        );
        while next < waits.len() && waits[next].0 < to {
            let (start, length) = waits[next];
            if start >= from && start + length < to {
                add(&mut reading, length, 1);
            }
            next += 1;
        }
        let interval = Interval {
            elapsed: 1e9,
            cpu: 1e8,
            open: 1e8,
            bounded: true,
        };
        extrapolator.commit(&reading, TARGET_ID, interval);
    }
    let found = extrapolated(&mut extrapolator, &reading);
    for length in lengths {
        let count = found
            .buckets()
            .find(|(index, _)| *index == bucket_of(length))
            .map_or(0, |(_, bucket)| bucket.count);
        let ratio = count as f64 / (seconds * each) as f64;
        assert!((0.95..1.05).contains(&ratio), "{length} ns: {ratio}");
    }
}
