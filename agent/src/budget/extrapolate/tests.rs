use agent_common::histogram::bucket_of;

use super::{super::figures::EARLY, *};

const TARGET_ID: u32 = 3;

/// A window of `open` ns in `elapsed` ns of a target that uses a tenth of a core.
fn interval(elapsed: f64, open: f64, bounded: bool) -> Interval {
    Interval {
        elapsed,
        work: work(elapsed / 10.0),
        open,
        open_work: work(open / 10.0),
        bounded,
    }
}

fn work(cpu: f64) -> Work {
    Work { cpu, ..Work::default() }
}

fn add(reading: &mut Reading, value: u64, count: u64) {
    add_of(0, reading, value, count);
}

/// Of one of those by which the series is split.
fn add_of(id: u32, reading: &mut Reading, value: u64, count: u64) {
    let histogram = reading
        .histograms
        .entry((TARGET_ID, Series::GoRunnable as u16, id))
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
    extrapolator.apply(&mut reading, TARGET_ID, work(0.0), 0.0);
    reading.whole(TARGET_ID, Series::GoRunnable)
}

#[test]
fn an_open_window_changes_nothing() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    for round in 1..50 {
        add(&mut reading, 1000 * round, round);
        let interval = interval(1e9, 1e9, false);
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
        let interval = interval(elapsed, 1e9, false);
        extrapolator.commit(&reading, TARGET_ID, interval);
    }
    let mut after = reading.clone();
    extrapolator.apply(&mut after, TARGET_ID, work(0.0), 0.0);
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
    extrapolator.apply(&mut reading, TARGET_ID, work(0.0), 0.0);
    assert_eq!(reading.histograms.len(), 3);
}

/// What a reading has of the runnable goroutines, `cpu` ns of the target's own CPU time after the last window.
fn count_after(extrapolator: &mut Extrapolator, reading: &Reading, cpu: f64) -> u64 {
    let mut reading = reading.clone();
    extrapolator.apply(&mut reading, TARGET_ID, work(cpu), 1e9);
    let counter = reading.counter(TARGET_ID, Series::GoUnstamped);
    let count = reading.whole(TARGET_ID, Series::GoRunnable).count();
    assert_eq!(counter, count);
    count
}

#[test]
fn time_since_the_last_window_has_the_rate_of_the_last_windows() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    let interval = interval(1e9, 1e7, false);
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
        work: work(2e6),
        ..interval
    };
    extrapolator.commit(&reading, TARGET_ID, quiet);
    assert_eq!(count_after(&mut extrapolator, &reading, 0.0), 4 * seen);
    for _ in 0..4 {
        add(&mut reading, 1000, 100);
        extrapolator.commit(&reading, TARGET_ID, interval);
    }
    assert_eq!(count_after(&mut extrapolator, &reading, 0.0), 7 * seen);
}

/// Adds to how often, and how long, goroutines were in a state.
fn add_state(reading: &mut Reading, count: u64, sum: u64) {
    let key = (TARGET_ID, Series::GoTime as u16, 0, 1);
    let bucket = reading.sums.entry(key).or_default();
    bucket.count += count;
    bucket.sum += sum;
}

/// In windows the target does a tenth of what it does in such a time otherwise.
#[test]
fn what_a_target_does_less_in_windows_is_corrected_but_not_time_in_states() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    let starts = |starts: f64| Work {
        starts: Some(starts),
        ..Work::default()
    };
    let interval = Interval {
        elapsed: 1e9,
        work: starts(91_000.0),
        open: 1e8,
        open_work: starts(1000.0),
        bounded: false,
    };
    let of_state = |reading: &Reading| reading.sums[&(TARGET_ID, Series::GoTime as u16, 0, 1)];
    for windows in 1..3 * u64::from(EARLY) {
        add(&mut reading, 1000, 1000);
        add_state(&mut reading, 1000, 90_000_000);
        extrapolator.commit(&reading, TARGET_ID, interval);
        let mut now = reading.clone();
        extrapolator.apply(&mut now, TARGET_ID, starts(0.0), 0.0);
        let expected = 91_000 * windows;
        let near = |count: u64| (count as f64 / expected as f64 - 1.0).abs() < 1e-6;
        assert!(
            near(now.whole(TARGET_ID, Series::GoRunnable).count()),
            "{windows} windows"
        );
        assert!(near(now.counter(TARGET_ID, Series::GoUnstamped)), "{windows} windows");
        let Bucket { count, sum } = of_state(&now);
        assert!(
            near(count) && sum == windows * 900_000_000,
            "{windows} windows: {count}, {sum}"
        );
    }
    // Time passes in states although nothing is done.
    let [mut now, mut later] = [reading.clone(), reading];
    extrapolator.apply(&mut now, TARGET_ID, starts(0.0), 0.0);
    extrapolator.apply(&mut later, TARGET_ID, starts(0.0), 1e9);
    let [now, later] = [now, later].map(|reading| of_state(&reading));
    assert_eq!((later.count, later.sum), (now.count, now.sum + 900_000_000));
}

/// Windows that end after so many events, of a target whose goroutines do a third of their work steadily, for requests, and the rest in bursts. Returns what
/// is found, relative to how much there was: of all, of each kind of work, and of all by time alone.
fn bursts(series: Series, events_a_window: u64, seconds: u64, seed: u64) -> (f64, [f64; 2], f64) {
    let plane = series.plane().unwrap();
    let each = if plane == Plane::Sample { 8.0 } else { 1.0 };
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut extrapolator, mut reading) = (Extrapolator::new(plane), Reading::default());
    let (mut all, mut by_time, mut burst_left) = ([0u64; 2], 0.0, 0u32);
    let (mut elapsed, mut open) = (0.0, 0.0);
    let work = |of: [u64; 2]| Work {
        starts: Some(each * (of[0] + of[1]) as f64),
        moved: Some(2.0 * of[0] as f64),
        ..Work::default()
    };
    let (mut so_far, mut inside) = ([0u64; 2], [0u64; 2]);
    for _ in 0..1000 * seconds {
        if random.u32(0..200) == 0 {
            burst_left = 5;
        }
        let now = [4 + random.u64(0..3), if burst_left > 0 { 400 } else { 0 }];
        burst_left = burst_left.saturating_sub(1);
        elapsed += 1e6;
        for kind in 0..2 {
            all[kind] += now[kind];
            so_far[kind] += now[kind];
        }
        // It opens half a second after the last one's end.
        if elapsed < 5e8 {
            continue;
        }
        open += 1e6;
        for kind in 0..2 {
            inside[kind] += now[kind];
        }
        if inside[0] + inside[1] < events_a_window {
            continue;
        }
        for (id, count) in (0..).zip(inside) {
            let histogram = reading.histograms.entry((TARGET_ID, series as u16, id)).or_default();
            let sum = 1000 * count;
            histogram.add(bucket_of(1000), Bucket { count, sum });
        }
        by_time += (inside[0] + inside[1]) as f64 * elapsed / open;
        let interval = Interval {
            elapsed,
            work: work(so_far),
            open,
            open_work: work(inside),
            bounded: false,
        };
        extrapolator.commit(&reading, TARGET_ID, interval);
        (elapsed, open, so_far, inside) = (0.0, 0.0, [0; 2], [0; 2]);
    }
    extrapolator.apply(&mut reading, TARGET_ID, work([0; 2]), 0.0);
    let found = [0, 1].map(|id| reading.histograms[&(TARGET_ID, series as u16, id)].count() as f64);
    let done = (all[0] + all[1]) as f64;
    let of_kinds = [found[0] / all[0] as f64, found[1] / all[1] as f64];
    ((found[0] + found[1]) / done, of_kinds, by_time / done)
}

#[test]
fn bursts_that_end_windows_count_once() {
    for seed in 0..5 {
        // A window holds one burst, of 2000.
        let (all, found, by_time) = bursts(Series::GoLatency, 2000, 600, seed);
        assert!(by_time > 1.5, "seed {seed}: {by_time}");
        assert!((all - 1.0).abs() < 0.01, "seed {seed}: {all}");
        assert!(
            found.into_iter().all(|found| (found - 1.0).abs() < 0.03),
            "seed {seed}: {found:?}"
        );
        // Of other series the sum is not known. What follows requests is right all the same.
        let (_, found, by_time) = bursts(Series::GoWaiting, 2000, 600, seed);
        assert!(by_time > 1.5, "seed {seed}: {by_time}");
        assert!((found[0] - 1.0).abs() < 0.03, "seed {seed}: {found:?}");
        assert!((found[1] - 1.0).abs() < 0.3, "seed {seed}: {found:?}");
    }
}

/// Goroutines that serve a steady load, besides others that start in bursts: the first kind follows calls on sockets, the other one starts.
#[test]
fn each_series_follows_its_own_measure() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    let work = |starts: f64, moved: f64| Work {
        starts: Some(starts),
        moved: Some(moved),
        ..Work::default()
    };
    let mut all = [0.0; 2];
    for windows in 1..=100 {
        // One window in ten meets a burst, of which there is one in each interval.
        let burst = if random.u32(0..10) == 0 { 2000 } else { 0 };
        let steady = 90 + random.u64(0..20);
        add_of(1, &mut reading, 1000, steady);
        add_of(2, &mut reading, 1000, 10 + burst);
        let interval = Interval {
            elapsed: 1e9,
            work: work(2000.0 + 1000.0, 2000.0),
            open: 1e8,
            open_work: work((steady + 10 + burst) as f64, 2.0 * steady as f64),
            bounded: false,
        };
        extrapolator.commit(&reading, TARGET_ID, interval);
        all[0] += 1000.0;
        all[1] += 2000.0;
        if windows < 10 {
            continue;
        }
        let mut now = reading.clone();
        extrapolator.apply(&mut now, TARGET_ID, work(0.0, 0.0), 0.0);
        let of = |id| now.histograms[&(TARGET_ID, Series::GoRunnable as u16, id)].count() as f64;
        let steady = of(1) / all[0];
        assert!((steady - 1.0).abs() < 0.1, "{windows} windows: {steady}");
        if windows == 100 {
            assert!((of(2) / all[1] - 1.0).abs() < 0.35, "{}", of(2) / all[1]);
        }
    }
}

/// Each bucket's count varies from window to window. If none may decrease, and each kept the most that it ever had, all together would have too much.
#[test]
fn what_may_not_decrease_does_not_grow_by_chance() {
    let mut random = fastrand::Rng::with_seed(5);
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    let mut before = Histogram::default();
    for windows in 1..=100 {
        for _ in 0..20 {
            add_of(random.u32(0..5), &mut reading, 1000 << random.u32(0..10), 1);
        }
        extrapolator.commit(&reading, TARGET_ID, interval(1e9, 1e7, false));
        // Half an interval later.
        let mut now = reading.clone();
        extrapolator.apply(&mut now, TARGET_ID, work(5e7), 5e8);
        let now = now.whole(TARGET_ID, Series::GoRunnable);
        let expected = 2000 * windows + 1000;
        assert!(
            (expected - 10..=expected + 10).contains(&now.count()),
            "{} of {expected}",
            now.count()
        );
        let lower = before.buckets().find(|(index, bucket)| {
            let now = now.buckets().find(|(of, _)| of == index);
            now.is_none_or(|(_, now)| now.count < bucket.count)
        });
        assert_eq!(lower, None, "{windows} windows");
        before = now;
    }
}

#[test]
fn the_time_of_a_window_that_saw_nothing_belongs_to_the_next() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    extrapolator.commit(&reading, TARGET_ID, interval(3e9, 0.0, true));
    add(&mut reading, 1000, 100);
    extrapolator.commit(&reading, TARGET_ID, interval(1e9, 1e8, false));
    let found = extrapolated(&mut extrapolator, &reading);
    assert_eq!((found.count(), extrapolator.times()), (4000, (1e8, 4e9)));
}

#[test]
fn quantiles_stay_in_order_when_counts_are_rounded() {
    let (mut extrapolator, mut reading) = (Extrapolator::new(Plane::Probes), Reading::default());
    for value in [1000, 1900, 2500] {
        add(&mut reading, value, 1);
    }
    let interval = interval(1.45e9, 1e9, true);
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
        let interval = interval(1e9, 1e8, true);
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
