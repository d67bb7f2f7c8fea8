use super::*;

const TARGET: u32 = 7;

/// A plane whose first window is open since 1000 ns.
fn open() -> PlaneState {
    let mut plane_state = PlaneState::new(Plane::Sockets, [].into(), None, MonoNs(500));
    plane_state.open_window(true, MonoNs(1000), work(1000.0), HitsSoFar { counted: 10, all: 30 });
    plane_state
}

/// Of a target that uses one core all the time.
fn work(cpu: f64) -> Work {
    Work { cpu, ..Work::default() }
}

fn interval(elapsed: f64, open: f64, bounded: bool) -> Option<Interval> {
    Some(Interval {
        elapsed,
        work: work(elapsed),
        open,
        open_work: work(open),
        bounded,
    })
}

#[test]
fn a_window_that_closes_is_pending_until_where_the_kernel_programs_ended_it() {
    let mut plane_state = open();
    // Of 120 hits, 90 counted.
    let hits = HitsSoFar { counted: 100, all: 150 };
    let cut = plane_state.cut(MonoNs(1400), hits);
    let pending = plane_state.close_window(TARGET, Some(cut), work(9e9)).unwrap();
    assert_eq!((pending.target_id, pending.plane), (TARGET, Plane::Sockets));
    assert_eq!((pending.interval.open, pending.interval.bounded), (400.0, true));
    assert!(plane_state.is_pending && plane_state.extrapolated);
    assert_eq!(plane_state.cuts, 1);
    plane_state.closed();
    assert!(
        plane_state.close_window(TARGET, None, work(9e9)).is_none(),
        "no window is open"
    );
}

#[test]
fn a_burst_that_ends_a_window_is_in_it() {
    let (mut probes, mut sockets) = (open(), open());
    probes.plane = Plane::Sample;
    for (plane_state, starts) in [(&mut probes, 3000.0), (&mut sockets, 40.0)] {
        let cut = plane_state.cut(MonoNs(1400), HitsSoFar { counted: 100, all: 150 });
        let done = Work {
            starts: Some(4000.0),
            moved: Some(4000.0),
            ..Work::default()
        };
        plane_state.window_work = Work {
            starts: Some(0.0),
            moved: Some(0.0),
            ..Work::default()
        };
        // 400 of the 40,000 ns that it took to see that it had ended.
        let interval = plane_state.end_interval((MonoNs(1000), Some(cut)), MonoNs(41_000), done, true);
        assert_eq!(
            (interval.open_work.starts, interval.open_work.moved),
            (Some(starts), Some(40.0))
        );
    }
}

#[test]
fn the_interval_of_a_long_window_ends_once_windows_have_been_closed() {
    let mut plane_state = open();
    let mut end = |extrapolated: bool, now: u64| {
        plane_state.extrapolated = extrapolated;
        let pending = plane_state.end_long_interval(TARGET, MonoNs(now), 1000, work(now as f64));
        pending.map(|pending| pending.interval)
    };
    assert_eq!(end(false, 5000), None, "figures are the kernel's own counts");
    assert_eq!(end(true, 1999), None, "it is young");
    assert_eq!(end(true, 2500), interval(1500.0, 1500.0, false));
    assert_eq!(end(true, 4000), interval(1500.0, 1500.0, false));
}

#[test]
fn work_in_a_window_is_what_was_done_since_it_was_opened() {
    let mut plane_state = open();
    plane_state.close_window(TARGET, None, work(1200.0)).unwrap();
    plane_state.closed();
    plane_state.open_window(false, clock::now(), work(1500.0), HitsSoFar::default());
    assert_eq!(
        plane_state.since_interval(work(1600.0), MonoNs(u64::MAX)).0,
        work(400.0)
    );
    let pending = plane_state.close_window(TARGET, None, work(1700.0)).unwrap();
    assert_eq!(
        (pending.interval.work, pending.interval.open_work),
        (work(500.0), work(200.0))
    );
}

#[test]
fn a_target_ends_with_its_window() {
    let mut plane_state = open();
    plane_state.extrapolated = true;
    let cut = plane_state.cut(MonoNs(1400), HitsSoFar { counted: 50, all: 130 });
    let pending = plane_state.end(TARGET, Some(cut), MonoNs(2000), work(2000.0));
    assert_eq!(pending.map(|pending| pending.interval), interval(1000.0, 400.0, false));
    assert_eq!(plane_state.window, Window::None);
    let mut plane_state = open();
    assert!(plane_state.end(TARGET, None, MonoNs(2000), work(2000.0)).is_none());
}
