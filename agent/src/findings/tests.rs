//! Planted readings: of a service in good health, and what each rule's tests change in them.

use agent_common::hits::Plane;

use super::{
    Change, Facts, Finding, RULES, Rule, Verdict,
    facts::{Host, Open, Peer},
    go::facts::{GoFacts, Origin},
};
use crate::{
    aggregate::Histogram,
    cgroup::{Cgroup, Usage},
    model::MonoNs,
    runtime::go::{Limiter, Threads},
    signal::{Coverage, SignalState},
    signals::go::looks::Doing,
};

/// ns in a second.
pub const S: f64 = 1e9;
const MIB: u64 = 1 << 20;

/// A Go service in good health after so many seconds of 200 requests a second: four cores, of which it uses one.
fn healthy(s: f64) -> Facts {
    let ns = |seconds: f64| (seconds * S) as u64;
    let count = |rate: f64| (rate * s) as u64;
    // Two thirds of the Ps' time are idle, the GC has 3 % of the rest.
    let cpu = [0.002, 0.028, 0.01, 0.002, 0.0, 0.001, 2.957, 1.0].map(|part| ns(part * s));
    let doing = |doing: Doing, each: u64| {
        let mut sums = [0; Doing::COUNT];
        sums[doing as usize] = each * (s / 10.0) as u64;
        sums
    };
    let origin = |function: &str, alive: u64, most: &str, what: Doing| Origin {
        function: function.to_owned(),
        place: format!("main.main at main.go:{alive}"),
        alive,
        most: most.to_owned(),
        doing: doing(what, alive),
    };
    let peer = |last: u8| Peer {
        name: format!("10.0.0.{last}:80"),
        port: 80,
        network: [0; 16],
        connects: 4 + s as u64 / 20,
        connect_time: ns(0.0001 * (4.0 + s)),
        connects_failed: 0,
        requests: count(100.0),
        request_time: count(100.0) * 2_000_000,
        latency: latency(count(100.0), 2_000_000),
    };
    Facts {
        time: MonoNs(ns(1000.0 + s)),
        planes: [Open {
            open: s * S,
            time: s * S,
        }; Plane::COUNT],
        host: Some(Host {
            cores: 4,
            busy: 1.5 * s,
            idle: 2.5 * s,
        }),
        usable: 4,
        cpu_time: Some(ns(s)),
        run_queue: Some(ns(0.02 * s)),
        quotas: Vec::new(),
        peers: (1..=3).map(|last| (u32::from(last), peer(last))).collect(),
        go: Some(GoFacts {
            time: MonoNs(ns(1000.0 + s)),
            gomaxprocs: 4,
            gogc: Some(100),
            memory_limit: None,
            heap_goal: Some(64 * MIB),
            goal_by_limit: Some(false),
            allocated: count(40e6),
            cycles: count(1.0),
            cycles_forced: 0,
            limiter: Some(Limiter::default()),
            cpu: Some(cpu),
            threads: Some(Threads {
                created: 12,
                ended: 0,
                idle: 6,
            }),
            c_calls: None,
            looks: 1 + (s / 10.0) as u64,
            origins: vec![
                origin("main.main", 1, "IO wait", Doing::Io),
                origin("net/http.(*conn).serve", 40, "IO wait", Doing::Io),
                origin("main.work", 8, "chan receive", Doing::Other),
            ],
            no_processor: ns(0.001 * s),
            names_mutexes: true,
            ..GoFacts::default()
        }),
    }
}

/// So many requests, each of which took that long.
pub fn latency(count: u64, each: u64) -> Histogram {
    let mut histogram = Histogram::default();
    let bucket = agent_common::histogram::Bucket {
        count,
        sum: count * each,
    };
    histogram.add(agent_common::histogram::bucket_of(each), bucket);
    histogram
}

/// A cgroup after so many seconds, throttled in this share of its ten periods a second, and for so many seconds per second.
pub fn cgroup(quota: f64, s: f64, share: f64, throttled: f64) -> Cgroup {
    Cgroup {
        path: "/pod/shop".to_owned(),
        usage: Usage {
            quota,
            periods: (10.0 * s) as u64,
            throttled_periods: (10.0 * s * share) as u64,
            throttled: (throttled * s * S) as u64,
        },
    }
}

/// It collects garbage so many times a second, and the GC uses so many cores of one that the service itself uses.
pub fn collects(facts: &mut Facts, s: f64, cycles: f64, gc: f64) {
    let go = go(facts);
    go.cycles = (cycles * s) as u64;
    let idle = 4.0 - 1.0 - gc;
    go.cpu = Some([0.0, gc, 0.0, 0.0, 0.0, 0.0, idle, 1.0].map(|part| (part * s * S) as u64));
}

/// What is known of its runtime.
pub fn go(facts: &mut Facts) -> &mut GoFacts {
    facts.go.as_mut().unwrap()
}

/// A minute of it, with something planted: by the facts and the seconds since the begin.
pub fn samples(plant: impl Fn(&mut Facts, f64)) -> Vec<Facts> {
    let sample = |step: u32| {
        let s = 10.0 * f64::from(step);
        let mut facts = healthy(s);
        plant(&mut facts, s);
        facts
    };
    (0..=6).map(sample).collect()
}

fn judge(rule: &Rule, samples: &[Facts], states: &[SignalState]) -> Verdict {
    (rule.judge)(&Change::of(samples, states, 7).unwrap())
}

/// The finding of a rule on planted facts.
#[track_caller]
pub fn found(rule: &Rule, plant: impl Fn(&mut Facts, f64)) -> Finding {
    let found = judge(rule, &samples(plant), &[]).unwrap();
    found.unwrap_or_else(|| panic!("{} does not hold", rule.name))
}

/// That a rule holds and says this, and explains so much, within a tenth.
#[track_caller]
pub fn check(rule: &Rule, plant: impl Fn(&mut Facts, f64), sentence: &str, explained: f64) {
    let finding = found(rule, plant);
    assert_eq!(finding.sentence, sentence);
    let off = (finding.explained - explained).abs();
    assert!(off <= 0.1 * explained, "{} explains {}", rule.name, finding.explained);
    assert!(
        !finding.advice.is_empty() && (!finding.evidence.is_empty()),
        "{finding:?}"
    );
}

/// That a rule does not hold.
#[track_caller]
pub fn check_not(rule: &Rule, plant: impl Fn(&mut Facts, f64)) {
    assert_eq!(judge(rule, &samples(plant), &[]), Ok(None), "{}", rule.name);
}

#[test]
fn a_service_in_good_health_has_no_findings() {
    for rule in &RULES {
        check_not(rule, |_, _| {});
    }
}

#[test]
fn what_is_not_seen_is_not_judged() {
    let blind = samples(|facts, _| facts.planes = [Open::default(); Plane::COUNT]);
    let judged = |name: &str| judge(super::rule(name).unwrap(), &blind, &[]);
    for name in ["net.slow_peer", "net.connect_per_request", "net.connect_fails"] {
        assert!(judged(name).is_err_and(|why| why.contains("no window")), "{name}");
    }
    let off: Vec<SignalState> = crate::signals::NAMES
        .into_iter()
        .map(|signal| SignalState {
            signal,
            coverage: Coverage::Off("as the test wants it".to_owned()),
        })
        .collect();
    let minute = samples(|_, _| {});
    for rule in RULES.iter().filter(|rule| rule.name != "cpu.no_core") {
        let verdict = judge(rule, &minute, &off);
        assert!(
            verdict.is_err_and(|why| why.contains("as the test wants it")),
            "{}",
            rule.name
        );
    }
    let other = samples(|facts, _| facts.go = None);
    for rule in RULES.iter().filter(|rule| rule.name.starts_with("go.")) {
        assert!(judge(rule, &other, &[]).is_err(), "{}", rule.name);
    }
}

#[test]
fn rules_are_complete_and_refer_to_others() {
    for rule in &RULES {
        let texts = [rule.name, rule.says, rule.evidence, rule.advice, rule.threshold];
        assert!(texts.iter().all(|text| !text.is_empty()), "{}", rule.name);
        assert_eq!(RULES.iter().filter(|other| other.name == rule.name).count(), 1);
        assert!(
            rule.instead_of.iter().all(|name| super::rule(name).is_some()),
            "{}",
            rule.name
        );
    }
}

#[test]
fn figures_have_about_three_digits() {
    for (value, expected) in [
        (3.0, "3"),
        (0.0, "0"),
        (0.0123, "0.012"),
        (1.234, "1.23"),
        (45.67, "45.7"),
        (1234.5, "1234"),
    ] {
        assert_eq!(super::short(value), expected);
    }
}
