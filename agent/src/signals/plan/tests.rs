//! Plans as tables: what a binary lacks, what is left out and what the kernel refuses → what is attached, and what is said of each
//! signal.

use super::*;
use crate::{
    inspect::{ArgLocation, GoHook, GoImage, InspectError, ProbeSite, SiteCost, SiteError, X86Register},
    signals::go,
};

mod needs;
mod tokio;

const BIAS: u64 = 0x5555_0000_0000;

/// What is expected of signals that are not full.
type Signals = &'static [(&'static str, &'static str)];
/// Programs that are not attached.
type Gone = &'static [&'static str];

/// A state in a few words.
fn said(coverage: &Coverage) -> String {
    match coverage {
        Coverage::Full => "full".to_owned(),
        Coverage::Partial(reason) => format!("in part: {reason}"),
        Coverage::Off(reason) => format!("off: {reason}"),
        Coverage::Lacking(reason) => format!("lacking: {reason}"),
    }
}

/// All signals are full, but for those that are named, of which each says what is expected; what is off has no probe.
#[track_caller]
fn check(plan: &Plan, expected: &[(&str, &str)]) {
    for state in &plan.states {
        let text = said(&state.coverage);
        let expected = expected.iter().find(|(signal, _)| *signal == state.signal);
        let (_, expected) = expected.unwrap_or(&("", "full"));
        assert!(text.contains(expected), "{}: {text}, not {expected}", state.signal);
        let probed = plan
            .probes
            .iter()
            .any(|probe| probe.signals().any(|of| of == state.signal));
        assert!(
            !(state.coverage.is_off() && probed),
            "{} is off and paid for",
            state.signal
        );
    }
    for (signal, _) in expected {
        assert!(
            plan.states.iter().any(|state| state.signal == *signal),
            "nothing of {signal}"
        );
    }
}

fn programs(plan: &Plan) -> Vec<&'static str> {
    let mut programs: Vec<_> = plan.probes.iter().map(|probe| probe.program).collect();
    programs.sort_unstable();
    programs.dedup();
    programs
}

const WHOLE: [&str; 14] = [
    "go_assist",
    "go_execute",
    "go_exit",
    "go_exitsyscall",
    "go_gc_cycle",
    "go_gosched",
    "go_handoff",
    "go_injectglist",
    "go_latency",
    "go_netpoll",
    "go_park",
    "go_runqput",
    "go_stop",
    "go_stw",
];

fn go(minor: u32, change: impl FnOnce(&mut GoImage)) -> Plan {
    let mut image = GoImage::sample(minor);
    change(&mut image);
    plan(&image, BIAS, &[])
}

#[test]
fn a_go_program_of_each_version_is_seen_whole_but_for_what_it_lacks() {
    for minor in 18..=27 {
        let plan = go(minor, |_| {});
        let expected: &[(&str, &str)] = match minor {
            ..22 => &[(
                "go.stw",
                "lacking: the runtime keeps the reason of a stop only since go1.22",
            )],
            22 => &[(
                "go.stw",
                "in part: the runtime keeps the time when all Ps had stopped only since go1.23",
            )],
            _ => &[],
        };
        check(&plan, expected);
        let lacks: &[&str] = match minor {
            ..22 => &["go_stop", "go_stw"],
            22 => &["go_stop"],
            _ => &[],
        };
        let whole: Vec<_> = WHOLE.into_iter().filter(|program| !lacks.contains(program)).collect();
        assert_eq!(programs(&plan), whole, "go1.{minor}");
        assert_eq!(plan.flags, agent_common::target::IS_GO);
        assert_eq!(plan.go.sched, BIAS + 0x8000);
    }
}

/// All probes of go.sched.
const SCHED: [&str; 8] = [
    "go_execute",
    "go_exit",
    "go_exitsyscall",
    "go_gosched",
    "go_injectglist",
    "go_netpoll",
    "go_park",
    "go_runqput",
];

#[test]
fn each_place_that_is_missing_is_missed() {
    let table: [(GoHook, Signals, Gone); 14] = [
        (
            GoHook::Execute,
            &[("go.sched", "off: no function of the names [\"runtime.execute\"]")],
            &SCHED,
        ),
        (
            GoHook::RunqPut,
            &[("go.sched", "off: no function of the names [\"runtime.runqput\"]")],
            &SCHED,
        ),
        (
            GoHook::Gosched,
            &[(
                "go.sched",
                "in part: no function of the names [\"runtime.goschedImpl\"]",
            )],
            &["go_gosched"],
        ),
        (
            GoHook::ExitSyscallNoP,
            &[("go.sched", "in part: ")],
            &["go_exitsyscall"],
        ),
        (GoHook::NetpollReady, &[("go.sched", "in part: ")], &["go_netpoll"]),
        (GoHook::InjectGlist, &[("go.sched", "in part: ")], &["go_injectglist"]),
        (GoHook::Park, &[("go.sched", "off: ")], &SCHED),
        (GoHook::Exit, &[("go.sched", "off: ")], &SCHED),
        (GoHook::GcCycleEnd, &[("go.gc", "off: ")], &["go_gc_cycle"]),
        (GoHook::StartWorld, &[("go.stw", "off: ")], &["go_stop", "go_stw"]),
        (
            GoHook::StopProcessor,
            &[("go.stw", "in part: the last to stop is not observed")],
            &["go_stop"],
        ),
        (GoHook::AssistEnd, &[("go.assist", "off: ")], &["go_assist"]),
        (GoHook::HandOff, &[("go.handoff", "off: ")], &["go_handoff"]),
        (GoHook::Latency, &[("go.latency", "off: ")], &["go_latency"]),
    ];
    for (hook, expected, gone) in table {
        let plan = go(26, |image| {
            let candidates = hook.candidates().iter().map(|name| (*name).to_owned()).collect();
            image.sites.insert(hook, Err(SiteError::NoSuchFunction { candidates }));
        });
        check(&plan, expected);
        let left: Vec<_> = WHOLE.into_iter().filter(|program| !gone.contains(program)).collect();
        assert_eq!(programs(&plan), left, "{hook:?}");
    }
}

#[test]
fn a_place_that_is_dear_or_has_lost_its_arguments_is_not_used() {
    let site = |image: &mut GoImage, hook, change: fn(&mut ProbeSite)| {
        change(image.sites.get_mut(&hook).unwrap().as_mut().unwrap());
    };
    let dear = "no instruction that the kernel emulates";
    for (hook, expected) in [
        (GoHook::Execute, ("go.sched", format!("off: runtime.execute: {dear}"))),
        (GoHook::Park, ("go.sched", format!("off: runtime.park_m: {dear}"))),
        (
            GoHook::HandOff,
            ("go.handoff", format!("off: runtime.handoffp: {dear}")),
        ),
        (
            GoHook::Latency,
            ("go.latency", format!("off: runtime.(*timeHistogram).record: {dear}")),
        ),
        // Once a cycle or a stop it may cost what it does.
        (GoHook::GcCycleEnd, ("go.gc", "full".to_owned())),
        (GoHook::StartWorld, ("go.stw", "full".to_owned())),
    ] {
        let plan = go(26, |image| {
            site(image, hook, |site| site.cost = SiteCost::SingleStepped)
        });
        check(&plan, &[(expected.0, &expected.1)]);
    }
    let elsewhere: fn(&mut ProbeSite) = |site| site.args = vec![ArgLocation::Register(X86Register::Rsi)];
    for (hook, signal, expected) in [
        (
            GoHook::RunqPut,
            "go.sched",
            "off: runtime.runqput: its arguments are not in their registers",
        ),
        (
            GoHook::StartWorld,
            "go.stw",
            "off: runtime.startTheWorldWithSema: its arguments are not",
        ),
        (
            GoHook::Latency,
            "go.latency",
            "off: runtime.(*timeHistogram).record: its arguments are not",
        ),
        (
            GoHook::HandOff,
            "go.handoff",
            "off: runtime.handoffp: its return address is not known at",
        ),
    ] {
        check(&go(26, |image| site(image, hook, elsewhere)), &[(signal, expected)]);
    }
}

/// Before go1.20 the method is inline, and the site has no arguments.
#[test]
fn where_latency_is_recorded_inline_it_is_read_of_the_goroutine() {
    let inline = |image: &mut GoImage| {
        let site = image.sites.get_mut(&GoHook::Latency).unwrap().as_mut().unwrap();
        site.function = "runtime.casgstatus".to_owned();
        site.args.clear();
    };
    let plan = go(18, inline);
    check(&plan, &[("go.stw", "lacking")]);
    assert_eq!(plan.go.g_runnable_time, 200);
    let plan = go(18, |image| {
        inline(image);
        image.offsets.as_mut().unwrap().g.runnable_time = None;
    });
    let off = "off: where a goroutine keeps the time that it was runnable is not known";
    check(&plan, &[("go.stw", "lacking"), ("go.latency", off)]);
    let plan = go(26, |_| {});
    assert_eq!(plan.go.g_runnable_time, agent_common::go::ABSENT);
    let plan = go(26, |image| image.offsets.as_mut().unwrap().sched.time_to_run = None);
    check(
        &plan,
        &[("go.latency", "off: where runtime.sched has its histogram is not known")],
    );
}

#[test]
fn without_the_runtimes_memory_nothing_of_go_is_left() {
    let stripped = || InspectError::Stripped { runtime: "Go" };
    let all = go::NAMES.map(|name| (name, "off: the Go binary is stripped"));
    let plans = [
        go(26, |image| image.offsets = Err(stripped())),
        go(26, |image| image.globals = Err(stripped())),
    ];
    for plan in plans {
        check(&plan, &all);
        assert_eq!((plan.probes.len(), plan.flags), (0, 0));
    }
    // Found in the file, and not so in the process; what was off keeps its own reason.
    let mut plan = go(26, |image| {
        image.sites.remove(&GoHook::GcCycleEnd);
    });
    without_memory(&GoImage::sample(26), &mut plan, "not proved");
    let all = go::NAMES.map(|name| match name {
        "go.gc" => (name, "off: not looked for in this binary"),
        name => (name, "off: not proved"),
    });
    check(&plan, &all);
    assert_eq!((plan.probes.len(), plan.flags), (0, 0));
}

#[test]
fn a_variable_without_a_home_is_a_figure_less() {
    let expected = ("go.runtime", "in part: runtime.sweep was not found in this binary");
    check(
        &go(26, |image| image.globals.as_mut().unwrap().sweep = None),
        &[expected],
    );
}

#[test]
fn where_uprobes_are_refused_what_is_read_from_memory_is_left() {
    let mut plan = go(21, |_| {});
    plan.without_probes("the kernel shares their stacks");
    let off = "off: the kernel shares their stacks";
    check(
        &plan,
        &[
            ("go.gc", off),
            ("go.assist", off),
            ("go.sched", off),
            ("go.handoff", off),
            ("go.latency", off),
            ("go.stw", "lacking: "),
        ],
    );
    assert!(plan.probes.is_empty());
}
