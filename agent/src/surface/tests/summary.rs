use std::{borrow::Cow, net::Ipv4Addr, path::Path, sync::Arc};

use agent_common::{
    go::sched::Spent,
    histogram::{Bucket, Series, bucket_of},
    net::{Peer, ROLE_SERVER},
};

use super::*;
use crate::{
    budget::{Interval, Work},
    discover::{Process, process},
    inspect::GoImage,
    memory::Memory,
    model::{MonoNs, Resource, Value},
    runtime::go::{GoRuntime, Seen, Snapshot, State as Status, Walk},
    signal::SignalState,
    signals::{State, go::runtime::GoState},
    target::Target,
};

const MS: u64 = 1_000_000;

#[test]
fn durations_are_short() {
    for (nanos, expected) in [
        (999, "999 ns"),
        (1_234, "1.23 µs"),
        (45_600, "45.6 µs"),
        (10_000_000, "10.0 ms"),
        (2_500_000_000, "2.50 s"),
    ] {
        assert_eq!(duration(nanos), expected);
    }
}

/// A target of every signal that has something to show, as no process is.
fn watched() -> Watched {
    let process = Process {
        pid: 7,
        start: 0,
        exe: Path::new("/bin/shop").to_owned(),
        name: "shop".to_owned(),
        program: None,
        root: process::proc(),
    };
    let resource = Resource {
        attributes: vec![(Cow::Borrowed("service.name"), Value::Str("shop".into()))],
    };
    let mut target = Target::new(process, 1, Arc::new(resource), MonoNs(0));
    target.futures = (1..=7).map(|id| (id, format!("shop::task{id}"))).collect();
    let mut state = State {
        wait_reasons: ["", "IO wait", "chan send", "semacquire"].map(str::to_owned).to_vec(),
        go: Some(go()),
        ..State::default()
    };
    (state.cycles.exported, state.cycles.left_out, state.cycles.missed) = (8, 2, 1);
    // The least growth of the last three walks counts.
    for (second, count) in [1, 21, 21, 21].into_iter().enumerate() {
        let seen = |goid| Seen {
            goid,
            startpc: 0,
            gopc: 0,
            state: Status::Waiting,
            reason: 2,
        };
        let walk = Walk {
            goroutines: (0..count).map(seen).collect(),
            left_out: 0,
        };
        state.goroutines.note(&walk, MonoNs(second as u64 * 1_000_000_000));
    }
    state.states.push(SignalState {
        signal: "thread.syscall",
        coverage: Coverage::Off("not asked for".to_owned()),
    });
    Watched::new(target, state)
}

/// A runtime whose table of size classes is all zeros, and what was read of it.
fn go() -> GoState {
    static CLASSES: [u16; 128] = [0; 128];
    let image = GoImage::sample(26);
    let (globals, offsets) = (image.globals.unwrap(), image.offsets.unwrap());
    let bias = (CLASSES.as_ptr().addr() as u64).wrapping_sub(globals.size_class_to_size);
    let memory = Memory::open(std::process::id()).unwrap();
    let mut go = GoState::new(GoRuntime::new(memory, bias, globals, offsets).unwrap());
    let snapshot = Snapshot {
        goroutines: 21,
        gomaxprocs: 2,
        heap_goal: Some(4 << 20),
        gc_cycles: 11,
        ..Snapshot::default()
    };
    go.latest = Some((MonoNs(0), snapshot));
    go
}

fn reading() -> Reading {
    let mut reading = Reading::default();
    let distributions = [
        (Series::GoRunnable, 0, 1),
        (Series::TokioWake, 0, 2),
        (Series::TokioBusy, 7, 4),
        (Series::RunQueue, 0, 5),
        // IO wait is not reported.
        (Series::GoWaiting, 1, 90),
        (Series::GoWaiting, 2, 10),
        (Series::GoWaiting, 3, 20),
        (Series::ServerRequest, 1, 30),
        (Series::ServerRequest, 9, 31),
        (Series::ClientRequest, 2, 40),
        (Series::Connect, 2, 50),
    ];
    let polls = (1..=7).map(|future| (Series::TokioPoll, future, u64::from(future)));
    for (series, id, ms) in distributions.into_iter().chain(polls) {
        let histogram = reading.histograms.entry((1, series as u16, id)).or_default();
        let sum = ms * MS;
        histogram.add(bucket_of(sum), Bucket { count: 1, sum });
    }
    // Another target's.
    let histogram = reading.histograms.entry((2, Series::RunQueue as u16, 0)).or_default();
    histogram.add(bucket_of(MS), Bucket { count: 1, sum: MS });
    for (id, port, role) in [(1, 80, ROLE_SERVER), (2, 5432, 0)] {
        let peer = Peer {
            address: Ipv4Addr::new(10, 0, 0, id as u8).to_ipv6_mapped().octets(),
            port,
            role,
            target_id: 1,
            ..Peer::default()
        };
        reading.peers.insert(id, peer);
    }
    reading.counters.insert((1, Series::ServerUnanswered as u16, 1), 3);
    reading.counters.insert((1, Series::ClientUnanswered as u16, 2), 4);
    for (peer, state, count) in [(1, 1, 50), (2, 1, 2), (2, 2, 4)] {
        let key = (1, Series::Retransmit as u16, peer, state);
        reading.sums.insert(key, Bucket { count, sum: 0 });
    }
    let turns = (1, Series::GoTime as u16, 0, Spent::NoProcessor as u8);
    reading.sums.insert(turns, Bucket { count: 1, sum: MS });
    reading
}

const EXPECTED: &str = "
shop  pid 7  runtime not watched
  goroutines 21  GOMAXPROCS 2  heap goal 4.0 MiB  GC cycles 11 (8 traced, 2 left out for --max-spans, 1 missed)
                                                                 count       p50       p90       p99
  goroutine runnable → running                                       1   1.00 ms   1.00 ms   1.00 ms
  task wake → poll                                                   1   2.00 ms   2.00 ms   2.00 ms
  task poll, all                                                     7   4.00 ms   7.00 ms   7.00 ms
  worker busy                                                        1   4.00 ms   4.00 ms   4.00 ms
  thread in run queue                                                1   5.00 ms   5.00 ms   5.00 ms
  wait semacquire                                                    1   20.0 ms   20.0 ms   20.0 ms
  wait chan send                                                     1   10.0 ms   10.0 ms   10.0 ms
  serve others                                                       1   31.0 ms   31.0 ms   31.0 ms
  serve :80 from 10.0.0.1                                            1   30.0 ms   30.0 ms   30.0 ms
  request 10.0.0.2:5432                                              1   40.0 ms   40.0 ms   40.0 ms
  connect 10.0.0.2:5432                                              1   50.0 ms   50.0 ms   50.0 ms
  poll shop::task7                                                   1   7.00 ms   7.00 ms   7.00 ms
  poll shop::task6                                                   1   6.00 ms   6.00 ms   6.00 ms
  poll shop::task5                                                   1   5.00 ms   5.00 ms   5.00 ms
  poll shop::task4                                                   1   4.00 ms   4.00 ms   4.00 ms
  poll shop::task3                                                   1   3.00 ms   3.00 ms   3.00 ms
  requests whose connection ended before an answer: 3 served, 4 made
  segments sent again: 4 syn_sent, 52 established
  runnable, not running: no P free 100.0 %
  goroutines grow: unknown +20 in 3s, 21 alive
  thread.syscall: off: not asked for
";

#[test]
fn everything_about_a_target_has_its_place() {
    assert_eq!(of_target(&watched(), &reading()), EXPECTED);
}

/// The row of scheduling latency, where go.sched has one value, and the runtime's sample two.
#[track_caller]
fn check_latency(sched: Option<Coverage>, values: u64, expected: &str) {
    let mut watched = watched();
    watched.state.states.extend(sched.map(|coverage| SignalState {
        signal: "go.sched",
        coverage,
    }));
    let mut reading = reading();
    for origin in 0..values {
        let key = (1, Series::GoLatency as u16, origin as u32);
        let sum = 2 * MS;
        let histogram = reading.histograms.entry(key).or_default();
        histogram.add(bucket_of(sum), Bucket { count: 1, sum });
    }
    let text = of_target(&watched, &reading);
    let rows = text.lines().filter(|line| line.contains("goroutine runnable"));
    let rows: Vec<_> = rows
        .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(rows, [format!("goroutine runnable → running {expected}")]);
}

#[test]
fn scheduling_latency_is_the_runtimes_sample_where_switches_are_not_all_seen() {
    let (of_sched, sampled) = ("1 1.00 ms 1.00 ms 1.00 ms", "16 2.00 ms 2.00 ms 2.00 ms");
    check_latency(Some(Coverage::Full), 2, of_sched);
    check_latency(Some(Coverage::Partial("less".to_owned())), 2, sampled);
    check_latency(None, 2, sampled);
    check_latency(None, 0, of_sched);
}

/// A window of the hooks on threads in a second, in which there was a thousandth of the work of each second of the ten since then.
fn under_more_load(watched: &mut Watched) {
    let cpu = |cpu: f64| Work { cpu, ..Work::default() };
    let window = Interval {
        elapsed: 1e9,
        work: cpu(2e6),
        open: 1e8,
        open_work: cpu(2e5),
        bounded: true,
    };
    let mut reading = reading();
    let extrapolator = &mut watched.threads.extrapolator;
    extrapolator.commit(&reading, 1, window);
    extrapolator.apply(&mut reading, 1, cpu(1e10), 1e10);
    watched.threads.extrapolated = true;
    watched.overhead.cpu = 1e10;
}

#[test]
fn figures_that_lack_a_load_which_rose_are_not_shown() {
    let mut watched = watched();
    under_more_load(&mut watched);
    let reading = Reading {
        time: MonoNs(11_000_000_000),
        ..reading()
    };
    let text = of_target(&watched, &reading);
    let words = |start: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words("thread in run queue"), "thread in run queue – – – –");
    // Of another plane.
    assert_eq!(words("wait semacquire"), "wait semacquire 1 20.0 ms 20.0 ms 20.0 ms");
    let costs = words("watching costs");
    assert!(costs.contains("last 11 s ago under less load (–)"), "{costs}");
}
