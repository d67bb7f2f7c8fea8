use super::*;

#[test]
fn cold_hits_are_paid_for_by_the_planes_that_were_hit() {
    let costs = Costs {
        trap: 0.0,
        kept: 0.0,
        programs: [100.0; HitKind::COUNT],
    };
    let split = |sample: u64, probes: u64, cold: u64| {
        let mut hits = [0; HitKind::COUNT];
        hits[HitKind::GoLatency as usize] = sample;
        hits[HitKind::GoPark as usize] = probes;
        hits[HitKind::Cold1ms as usize] = cold;
        hits[HitKind::ColdKind4ms as usize] = cold;
        let windows = costs.split(&hits).windows;
        [Plane::Sample, Plane::Probes].map(|plane| windows[plane as usize].cost)
    };
    assert_eq!(split(0, 0, 0), [0.0, 0.0]);
    assert_eq!(split(4, 0, 1), [600.0, 0.0]);
    assert_eq!(split(0, 4, 1), [0.0, 600.0]);
    assert_eq!(split(1, 3, 2), [200.0, 600.0]);
    // Hits of closed windows, which are detached, or of what is always attached.
    assert_eq!(split(0, 0, 1), [0.0, 200.0]);
}

#[test]
fn samples_follow_windows() {
    let check = |since: Option<u64>, open, unknown, expected| {
        assert_eq!(
            is_due(since.map(Duration::from_secs), open, unknown),
            expected,
            "{since:?} {open} {unknown}"
        );
    };
    check(None, false, false, false);
    check(None, true, false, true);
    check(None, false, true, true);
    check(Some(2), true, true, false);
    check(Some(3), true, true, true);
    // At the end of each GC cycle, window or no window.
    check(Some(3), false, true, true);
    check(Some(14), true, false, false);
    check(Some(15), true, false, true);
    check(Some(15), false, false, false);
    check(Some(30), false, false, true);
}
