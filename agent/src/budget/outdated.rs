//! Whether what windows saw says how much there is now. Pure.

use super::{Work, figures::RISE};

/// After so long without a window, ns, the next one is not about to show what the load is now.
const OLD: f64 = 5e9;

/// Whether the last window was long ago, and the target did so much more in the `elapsed` ns since then, which is `work`, than of late before, when it did
/// `recent` in `recent_time` ns, that figures do not have all of it. Where the load fell, they follow that.
pub fn is_outdated((recent, recent_time): (Work, f64), work: Work, elapsed: f64) -> bool {
    if elapsed < OLD || recent_time <= 0.0 {
        return false;
    }
    let most = RISE * elapsed / recent_time;
    match work.ratio(recent) {
        Some(ratio) => ratio > most,
        // It did too little then to compare with.
        None => recent.ratio(work).is_some_and(|part| part * most < 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of late there were so many calls on sockets in a second, and then in each of `seconds`.
    #[track_caller]
    fn check(recent: f64, now: f64, seconds: f64, expected: bool) {
        let calls = |calls: f64| Work {
            moved: Some(calls),
            ..Work::default()
        };
        let found = is_outdated((calls(recent), 1e9), calls(now * seconds), seconds * 1e9);
        assert_eq!(found, expected, "{recent} a second, then {now} for {seconds} s");
    }

    #[test]
    fn a_load_that_rose_long_after_the_last_window_is_not_known() {
        check(1000.0, 1000.0, 10.0, false);
        check(1000.0, 3900.0, 10.0, false);
        check(1000.0, 4100.0, 10.0, true);
        // A window is about to show it.
        check(1000.0, 4100.0, 4.0, false);
        // It fell, or ended.
        check(1000.0, 1.0, 10.0, false);
        check(1000.0, 0.0, 10.0, false);
        // It did hardly anything when it was seen.
        check(1.0, 100.0, 10.0, true);
        check(1.0, 3.0, 20.0, false);
        check(0.0, 4.0, 10.0, false);
        check(0.0, 0.0, 10.0, false);
    }

    #[test]
    fn before_the_first_window_nothing_is_old() {
        let busy = Work {
            cpu: 1e10,
            ..Work::default()
        };
        assert!(!is_outdated((Work::default(), 0.0), busy, 1e10));
        assert!(is_outdated((Work { cpu: 2e6, ..busy }, 1e9), busy, 1e10));
    }
}
