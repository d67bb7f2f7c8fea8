//! Which share of the time windows may take without a visible effect on the 99th percentile of a service's latency. Pure.
//!
//! In a window each request takes more CPU time, and where cores are busy it waits for others' that take more, too. With one
//! queue, arrivals at random and service times that are (M/M/1), a response takes 1 / (1 − ρ) service times in the mean and
//! is distributed exponentially; ρ is how busy the cores are. Service that is slower by the part σ makes it longer by the factor
//! A = (1 + σ) (1 − ρ) / (1 − ρ (1 + σ)). Of the requests in windows exp(−ln 100 / A) then take longer than the 99th percentile
//! without; outside it is one in a hundred. A window with ρ (1 + σ) ≥ 1 is one of overload: nearly all do, and those after it
//! until what waits is done, (ρ − 1 / (1 + σ)) / (1 − ρ) times as long as the window.
//! docs/design/budget.md has what was measured.

/// Share of requests over the 99th percentile, and ln of its reciprocal.
const OVER: f64 = 0.01;
const LN: f64 = 4.605_170_185_988_092;
/// Least idle share of the cores that is assumed: closed loops keep cores completely busy, without queues that grow for ever.
const REST: f64 = 0.05;

/// Share of all requests that may take longer than the 99th percentile because of windows, when that may get longer by the
/// part `longer`: with so many far over it, an exponential tail has the rest of the one percent that much further out.
pub fn allowed(longer: f64) -> f64 {
    -OVER * (-LN * longer).exp_m1()
}

/// How many requests take longer than the 99th percentile because of windows, as a share of those in windows (over 1 when those
/// after them do, too); `busy` is the share of the cores' time that is used, `slower` what windows cost for each ns of the
/// service's own CPU time.
pub fn excess(busy: f64, slower: f64) -> f64 {
    let left = 1.0 - busy * (1.0 + slower);
    if left <= 0.0 {
        let after = (busy - 1.0 / (1.0 + slower)) / (1.0 - busy).max(REST);
        return (1.0 - OVER) * (1.0 + after);
    }
    let longer = (1.0 + slower) * (1.0 - busy) / left;
    ((-LN / longer).exp() - OVER).max(0.0)
}

/// Share of the time that windows may take, at most 1.
pub fn share(allowed: f64, busy: f64, slower: f64) -> f64 {
    let excess = excess(busy.clamp(0.0, 1.0 - REST), slower.max(0.0));
    if allowed >= excess { 1.0 } else { allowed / excess }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Responses of an M/M/1 queue whose service is slower while windows are open: the 99th percentile, in service times.
    fn simulate(busy: f64, slower: f64, windows: Option<(f64, f64)>, seed: u64) -> f64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut exponential = |mean: f64| -mean * (1.0 - random.f64()).ln();
        let (mut now, mut free, mut responses) = (0.0, 0.0_f64, Vec::new());
        for _ in 0..3_000_000 {
            now += exponential(1.0 / busy);
            let begin = free.max(now);
            // A window of a length each so often.
            let open = windows.is_some_and(|(length, every)| begin % every < length);
            let factor = if open { 1.0 + slower } else { 1.0 };
            free = begin + exponential(factor);
            responses.push(free - now);
        }
        let at = responses.len() / 100 * 99;
        *responses.select_nth_unstable_by(at, f64::total_cmp).1
    }

    /// The oracle is the queue itself: windows of that share of the time lengthen its 99th percentile by about what is allowed.
    #[test]
    fn windows_of_this_share_lengthen_the_tail_by_what_is_allowed() {
        for (busy, slower, longer) in [(0.5, 0.5, 0.1), (0.7, 0.25, 0.1), (0.7, 1.0, 0.2), (0.8, 0.15, 0.1)] {
            let share = share(allowed(longer), busy, slower);
            assert!(share < 0.5, "{busy} {slower}: {share}");
            let length = 2000.0;
            let without = simulate(busy, slower, None, 1);
            let with = simulate(busy, slower, Some((length, length / share)), 1);
            let found = with / without - 1.0;
            assert!(
                (0.2 * longer..1.8 * longer).contains(&found),
                "busy {busy}, slower {slower}, {share} of the time: {found} longer, {longer} allowed"
            );
        }
    }

    #[test]
    fn the_busier_and_the_slower_the_rarer() {
        let allowed = allowed(0.02);
        for (busy, slower, least, most) in [
            (0.0, 0.5, 0.02, 0.03),
            (0.3, 0.5, 0.01, 0.02),
            (0.7, 0.25, 0.004, 0.006),
            (0.7, 0.01, 0.2, 1.0),
            (0.95, 0.3, 0.0001, 0.0003),
            (1.0, 0.1, 0.0002, 0.0005),
            (2.0, 0.1, 0.0002, 0.0005),
            (0.9, 0.0, 1.0, 1.0),
        ] {
            let share = share(allowed, busy, slower);
            assert!((least..=most).contains(&share), "{busy} {slower}: {share}");
        }
    }
}
