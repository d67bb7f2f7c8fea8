//! Every flag against every signal; a kernel's refusal of a hook, and a probe that cannot be attached, are the same situation.

use super::*;
use crate::{signal::is_dark, signals};

/// What there is of each signal of a process where `off` are off, for `reason`; the kernel's and the process' own among them.
fn states(plan: &Plan, off: &[&str], reason: &str) -> Vec<SignalState> {
    let others = [
        "net.connect",
        "net.request",
        "net.retransmit",
        "thread.run_queue",
        "process.quota",
        "thread.totals",
    ];
    let others = others.into_iter().map(|signal| SignalState {
        signal,
        coverage: if off.contains(&signal) {
            Coverage::Off(reason.to_owned())
        } else {
            Coverage::Full
        },
    });
    let planned: Vec<_> = plan.states.iter().cloned().chain(others).collect();
    states_now(&planned, [])
}

/// All are full, but for those that are named.
#[track_caller]
fn check(states: &[SignalState], off: &str, expected: &[(&str, &str)]) {
    for SignalState { signal, coverage } in states {
        let text = said(coverage);
        let expected = expected.iter().find(|(name, _)| name == signal);
        let (_, expected) = expected.unwrap_or(&("", "full"));
        assert!(
            text.starts_with(expected),
            "without {off}: {signal}: {text}, not {expected}"
        );
    }
    for (signal, _) in expected {
        assert!(
            states.iter().any(|state| state.signal == *signal),
            "nothing of {signal}"
        );
    }
}

/// Of each signal: what others say without it.
const GO: [(&str, &[(&str, &str)]); 15] = [
    ("go.runtime", &[]),
    ("go.goroutines", &[]),
    ("go.wait", &[]),
    (
        "go.gc",
        &[("go.stw", "in part: the GC's stops have no spans: go.gc is off")],
    ),
    (
        "go.stw",
        &[(
            "go.gc",
            "in part: the cause of cycles, and the last to stop for them, are not reported: go.stw is off",
        )],
    ),
    (
        "go.assist",
        &[(
            "go.gc",
            "in part: a cycle's assists by function are not reported: go.assist is off",
        )],
    ),
    ("go.sched", &[]),
    ("go.handoff", &[]),
    ("go.latency", &[]),
    (
        "net.connect",
        &[(
            "net.retransmit",
            "in part: retransmissions of SYNs are not counted: net.connect is off",
        )],
    ),
    (
        "net.request",
        &[(
            "net.retransmit",
            "in part: retransmissions on established connections are not counted: net.request is off",
        )],
    ),
    ("net.retransmit", &[]),
    (
        "thread.run_queue",
        &[
            (
                "go.sched",
                "in part: off-CPU time of threads is not reported separately: thread.run_queue is off",
            ),
            (
                "go.stw",
                "in part: whether the last thread to stop waited for a core is not reported: thread.run_queue is off",
            ),
        ],
    ),
    (
        "process.quota",
        &[(
            "go.sched",
            "in part: the cgroup that throttles is not reported: process.quota is off",
        )],
    ),
    ("thread.totals", &[]),
];

const TOKIO: [(&str, &[(&str, &str)]); 8] = [
    ("tokio.poll", &[]),
    ("tokio.wake", &[]),
    GO[9],
    GO[10],
    GO[11],
    ("thread.run_queue", &[]),
    ("process.quota", &[]),
    ("thread.totals", &[]),
];

#[test]
fn every_flag_against_every_signal() {
    let (go, tokio) = (GoImage::sample(26), tokio::sample());
    let images: [(&dyn Image, _); 2] = [(&go, &GO[..]), (&tokio, &TOKIO[..])];
    for (image, table) in images {
        for (flag, others) in table {
            let left_out = plan(image, BIAS, &[(*flag).to_owned()]);
            let own = (*flag, "off: left out by --without");
            let expected: Vec<_> = others.iter().copied().chain([own]).collect();
            let states = states(&left_out, &[flag], LEFT_OUT);
            check(&states, flag, &expected);
            assert!(!is_dark(&states), "{flag} was left out by the user");
            let mut probes = left_out.probes.iter();
            assert!(
                !probes.any(|probe| probe.signals().any(|signal| signal == *flag)),
                "{flag} is paid for"
            );
        }
    }
    // Every signal that can be left out is in the tables; one that has to be asked for nobody needs.
    let known: Vec<_> = GO.iter().chain(&TOKIO).map(|(signal, _)| *signal).collect();
    for name in signals::NAMES {
        assert!(known.contains(&name) || signals::optional().contains(&name), "{name}");
    }
}

#[test]
fn a_refusal_is_as_a_flag() {
    let whole = plan(&GoImage::sample(26), BIAS, &[]);
    for (signal, others) in GO {
        let states = if signal.starts_with("go.") {
            let failure = Failure {
                signal: signals::NAMES.into_iter().find(|name| *name == signal).unwrap(),
                essential: true,
                reason: "refused".to_owned(),
            };
            states_now(&states(&whole, &[], ""), [&failure])
        } else {
            states(&whole, &[signal], "refused")
        };
        let expected: Vec<_> = others.iter().copied().chain([(signal, "off: refused")]).collect();
        check(&states, signal, &expected);
        assert!(is_dark(&states), "{signal}");
    }
}

/// The begin of a poll is the end of a wait for it: who wants only that pays for nothing else.
#[test]
fn wakes_need_no_more_of_polls_than_their_begin() {
    let image = tokio::sample();
    let programs = |without: &[&str]| {
        let without: Vec<_> = without.iter().map(|name| (*name).to_owned()).collect();
        programs(&plan(&image, BIAS, &without))
    };
    assert_eq!(
        programs(&["tokio.poll"]),
        ["tokio_poll_begin", "tokio_schedule", "tokio_spawn"]
    );
    assert_eq!(
        programs(&["tokio.wake"]),
        ["tokio_park", "tokio_poll_begin", "tokio_poll_end"]
    );
    assert!(programs(&["tokio.poll", "tokio.wake"]).is_empty());
}

#[test]
fn what_its_version_lacks_is_missed_by_nobody() {
    let states = states(&go(21, |_| {}), &[], "");
    check(&states, "nothing", &[("go.stw", "lacking: ")]);
    assert!(!is_dark(&states));
}

#[test]
fn what_could_not_be_attached_is_told_until_it_is_back() {
    let planned = |coverage| {
        vec![SignalState {
            signal: "go.sched",
            coverage,
        }]
    };
    let now = |coverage, failures: &[(&str, bool)]| {
        let failures: Vec<_> = failures
            .iter()
            .map(|(reason, essential)| Failure {
                signal: "go.sched",
                essential: *essential,
                reason: (*reason).to_owned(),
            })
            .collect();
        said(&states_now(&planned(coverage), &failures)[0].coverage)
    };
    let partial = || Coverage::Partial("less".to_owned());
    let off = || Coverage::Off("none".to_owned());
    for (coverage, failures, expected) in [
        (Coverage::Full, &[][..], "full"),
        (Coverage::Full, &[("a", false)], "in part: a"),
        (Coverage::Full, &[("a", false), ("b", false)], "in part: a; b"),
        (Coverage::Full, &[("a", false), ("b", true)], "off: b"),
        (Coverage::Full, &[("b", true), ("a", false)], "off: b"),
        (partial(), &[], "in part: less"),
        (partial(), &[("a", false)], "in part: less; a"),
        (off(), &[("a", true)], "off: none"),
        (off(), &[("a", false)], "off: none"),
    ] {
        assert_eq!(now(coverage, failures), expected);
    }
}

#[test]
fn a_signal_that_needs_one_of_two_is_off_without_both() {
    let image = GoImage::sample(26);
    let needs = ["net.connect", "net.request"];
    let plan = plan(&image, BIAS, &[]);
    for (reason, expected) in [(LEFT_OUT, LEFT_OUT), ("refused", "net.request and net.connect are off")] {
        let states = states(&plan, &needs, reason);
        let state = states.iter().find(|state| state.signal == "net.retransmit").unwrap();
        assert_eq!(state.coverage, Coverage::Off(expected.to_owned()));
        // The user left out what is missing.
        assert_eq!(is_dark(&states), reason != LEFT_OUT);
    }
}
