//! tokio's plans.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::{
    target::{IS_TOKIO, POLLS_RETURN},
    tokio::{
        poll::{BLOCKING, UNENDED},
        wake::{IN_RDI, IN_RSI, ON_STACK},
    },
};

use super::*;
use crate::inspect::{
    ElfFacts, ElfKind, FutureName, HeaderLayout, PollSite, TaskKind, TaskVtable, TokioHook, TokioImage,
};

fn site(function: &str, vaddr: u64, arg: Option<X86Register>) -> ProbeSite {
    ProbeSite {
        function: function.to_owned(),
        vaddr,
        file_offset: vaddr,
        bytes: vec![0x55],
        cost: SiteCost::Emulated,
        behind_stack_check: false,
        may_repeat: false,
        args: arg.into_iter().map(ArgLocation::Register).collect(),
    }
}

fn vtable(number: u64, future: &str, kind: TaskKind) -> TaskVtable {
    TaskVtable {
        vaddr: 0x100 * number,
        poll: 0x1000 * number,
        schedule: 0x1000 * number + 0x100,
        future: FutureName::Known(future.to_owned()),
        kind,
        scheduler: None,
        calls_poll_begin: true,
        calls_poll_end: true,
        id_offset: 40,
        scheduler_offset: 32,
    }
}

/// One in which everything was found: two futures and a closure.
pub(super) fn sample() -> TokioImage {
    let hook = |(index, hook): (usize, TokioHook)| {
        let site = site(
            &format!("{hook:?}"),
            0x10 * (index as u64 + 1),
            hook.registers().first().copied(),
        );
        (hook, vec![Ok(site)])
    };
    let vtables = vec![
        vtable(1, "pay", TaskKind::Async),
        vtable(2, "ship", TaskKind::Async),
        vtable(3, "read", TaskKind::Blocking),
    ];
    let polls = vtables.iter().map(|vtable| PollSite {
        site: Ok(site("raw::poll", vtable.poll, Some(X86Register::Rdi))),
        future: vtable.future.clone(),
        kind: vtable.kind,
        poll_fn: vtable.poll,
    });
    TokioImage {
        elf: ElfFacts {
            kind: ElfKind::Pie,
            entry: 0,
            machine: object::elf::EM_X86_64.0,
            gnu_build_id: None,
            go_build_id: None,
            segments: Vec::new(),
            is_static: true,
        },
        version: Some("1.54.1".to_owned()),
        rejected_vtables: 0,
        header: HeaderLayout { vtable_offset: 16 },
        hooks: TokioHook::ALL
            .into_iter()
            .enumerate()
            .map(hook)
            .collect::<BTreeMap<_, _>>(),
        polls: polls.collect(),
        returns: Vec::new(),
        vtables,
    }
}

fn tokio(change: impl FnOnce(&mut TokioImage)) -> Plan {
    let mut image = sample();
    change(&mut image);
    plan(&image, BIAS, &[])
}

const WHOLE: [&str; 5] = [
    "tokio_park",
    "tokio_poll_begin",
    "tokio_poll_end",
    "tokio_schedule",
    "tokio_spawn",
];

fn without(gone: &[&str]) -> Vec<&'static str> {
    WHOLE.into_iter().filter(|program| !gone.contains(program)).collect()
}

fn no_such(image: &mut TokioImage, hook: TokioHook) {
    let candidates = vec![format!("{hook:?}")];
    image
        .hooks
        .insert(hook, vec![Err(SiteError::NoSuchFunction { candidates })]);
}

fn not_proved(image: &mut TokioImage, hook: TokioHook) {
    let (function, reason) = (format!("{hook:?}"), "not shown".to_owned());
    image
        .hooks
        .insert(hook, vec![Err(SiteError::NotProved { function, reason })]);
}

#[test]
fn all_that_is_found_is_attached_at_its_bias() {
    let plan = tokio(|_| {});
    check(&plan, &[]);
    assert_eq!(programs(&plan), WHOLE);
    assert_eq!(
        plan.types,
        [(BIAS + 0x100, 1), (BIAS + 0x200, 2), (BIAS + 0x300, 3 | BLOCKING)]
    );
    assert_eq!(plan.futures[&(3 | BLOCKING)], "read");
    let hook = |hook: TokioHook| TokioHook::ALL.iter().position(|other| *other == hook).unwrap() as u64 + 1;
    let woken = [TokioHook::Schedule, TokioHook::Yield, TokioHook::Spawn];
    assert_eq!(plan.sites, woken.map(|of| (BIAS + 0x10 * hook(of), IN_RSI)));
    assert_eq!((plan.tokio_vtable, plan.tokio_id_offset), (16, 72));
    assert_eq!(plan.flags, IS_TOKIO);
}

type Change = fn(&mut TokioImage);

const INLINED: Signals = &[(
    "tokio.poll",
    "2 of 2 types of tasks are not visible (the compiler inlined them, as with LTO): their polls are counted, but not timed. A build with `lto = false`",
)];
const UNPROVED: Signals = &[(
    "tokio.poll",
    "2 of 2 types of tasks are not visible (PollEndPending: not shown",
)];

#[test]
fn each_hook_that_is_missing_is_missed() {
    let table: [(Change, Signals, Gone); 9] = [
        // Both ends inlined: fat LTO.
        (
            |image| {
                no_such(image, TokioHook::PollEndPending);
                no_such(image, TokioHook::PollEndComplete);
            },
            INLINED,
            &["tokio_poll_end"],
        ),
        (|image| no_such(image, TokioHook::PollEndComplete), INLINED, &[]),
        // All three are there, and nobody knows what their argument points to: opt-level s.
        (
            |image| {
                not_proved(image, TokioHook::PollBegin);
                not_proved(image, TokioHook::PollEndPending);
                not_proved(image, TokioHook::PollEndComplete);
            },
            UNPROVED,
            &["tokio_poll_end"],
        ),
        (
            |image| {
                no_such(image, TokioHook::PollBegin);
                image.polls.clear();
            },
            &[
                ("tokio.poll", "off: no function of the names [\"PollBegin\"]"),
                ("tokio.wake", "off: no poll is visible in this binary"),
            ],
            &WHOLE,
        ),
        (
            |image| no_such(image, TokioHook::Park),
            &[("tokio.poll", "in part: no function of the names [\"Park\"]")],
            &["tokio_park"],
        ),
        (
            |image| no_such(image, TokioHook::Spawn),
            &[("tokio.wake", "in part: no function of the names [\"Spawn\"]")],
            &["tokio_spawn"],
        ),
        (
            |image| no_such(image, TokioHook::Yield),
            &[("tokio.wake", "in part: ")],
            &[],
        ),
        (
            |image| {
                for hook in [TokioHook::Schedule, TokioHook::Yield, TokioHook::Spawn] {
                    no_such(image, hook);
                }
            },
            &[("tokio.wake", "off: no function of the names")],
            &["tokio_schedule", "tokio_spawn"],
        ),
        (
            |image| image.rejected_vtables = 3,
            &[("tokio.poll", "in part: 3 places refer to poll functions")],
            &[],
        ),
    ];
    for (row, (change, expected, gone)) in table.into_iter().enumerate() {
        let plan = tokio(change);
        check(&plan, expected);
        assert_eq!(programs(&plan), without(gone), "row {row}");
    }
}

#[test]
fn a_type_without_ends_is_marked_and_counted_apart() {
    let plan = tokio(|image| image.vtables[1].calls_poll_end = false);
    check(
        &plan,
        &[("tokio.poll", "in part: some ends of polls of 1 of 2 types of tasks")],
    );
    let ids: Vec<u32> = plan.types.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [1, 2 | UNENDED, 3 | BLOCKING]);
    // A closure is never pending.
    let plan = tokio(|image| no_such(image, TokioHook::PollEndPending));
    let ids: Vec<u32> = plan.types.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [1 | UNENDED, 2 | UNENDED, 3 | BLOCKING]);
}

#[test]
fn where_the_ends_are_inlined_polls_end_where_they_return() {
    let mut image = sample();
    image.vtables[1].calls_poll_end = false;
    image.returns = vec![Ok(site("run_task", 0x910, None)), Ok(site("Inner::run", 0x920, None))];
    let plan = plan(&image, BIAS, &[]);
    check(&plan, &[]);
    let expected = WHOLE.map(|program| {
        if program == "tokio_poll_end" {
            "tokio_poll_return"
        } else {
            program
        }
    });
    assert_eq!(programs(&plan), expected);
    assert_eq!(plan.flags, IS_TOKIO | POLLS_RETURN);
    let ids = |types: &[(u64, u32)]| types.iter().map(|(_, id)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&plan.types), [1, 2, 3 | BLOCKING]);
    // Which scheduler runs a type is not known, so without one of them no type's ends are all seen.
    let returns = plan.probes.iter().filter(|probe| probe.program == "tokio_poll_return");
    let missing: Vec<Probe> = returns.take(1).cloned().collect();
    let Lost { places, types, failure } = lost(&image, BIAS, &missing, false).unwrap();
    assert_eq!(places, [0x910]);
    assert_eq!(ids(&types), [1 | UNENDED, 2 | UNENDED, 3 | BLOCKING | UNENDED]);
    assert!(failure.unwrap().reason.contains("2 of 2 types of tasks"));
}

#[test]
fn types_of_one_name_are_one() {
    let plan = tokio(|image| image.vtables[1].future = image.vtables[0].future.clone());
    let ids: Vec<u32> = plan.types.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [1, 1, 2 | BLOCKING]);
    // A closure of the same name is none of them.
    let plan = tokio(|image| image.vtables[2].future = image.vtables[0].future.clone());
    let ids: Vec<u32> = plan.types.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [1, 2, 3 | BLOCKING]);
}

#[test]
fn types_whose_ends_could_not_be_attached_are_marked_until_they_are() {
    let mut image = sample();
    // Of a second copy of tokio in the binary, or of one that the compiler made.
    let copy = site("PollEndPending", 0x900, Some(X86Register::Rdi));
    image.hooks.get_mut(&TokioHook::PollEndPending).unwrap().push(Ok(copy));
    image.vtables[1].calls_poll_end = false;
    let plan = plan(&image, BIAS, &[]);
    let ends: Vec<&Probe> = plan
        .probes
        .iter()
        .filter(|probe| probe.program == "tokio_poll_end")
        .collect();
    let [pending, copy, complete] = ends[..] else {
        panic!("{ends:?}")
    };
    let check = |missing: &[&Probe], expected: [u32; 3], told: &str| {
        let missing: Vec<Probe> = missing.iter().copied().cloned().collect();
        let Lost { types, failure, .. } = lost(&image, BIAS, &missing, true).unwrap();
        let addresses = |types: &[(u64, u32)]| types.iter().map(|(vtable, _)| *vtable).collect::<Vec<_>>();
        assert_eq!(addresses(&types), addresses(&plan.types));
        assert_eq!(types.iter().map(|(_, id)| *id).collect::<Vec<_>>(), expected);
        let failure = failure.map(|failure| (failure.signal, failure.essential, failure.reason));
        match (&failure, told) {
            (None, "") => {}
            (Some(("tokio.poll", false, reason)), told) if !told.is_empty() => {
                assert!(reason.contains(told), "{reason}")
            }
            _ => panic!("{failure:?}"),
        }
    };
    let planned = [1, 2 | UNENDED, 3 | BLOCKING];
    let unended = [1 | UNENDED, 2 | UNENDED, 3 | BLOCKING];
    check(&[], planned, "");
    check(&[pending], unended, "1 of 2 types");
    // Which of the two a type calls is not known.
    check(&[copy], unended, "1 of 2 types");
    let all = [1 | UNENDED, 2 | UNENDED, 3 | BLOCKING | UNENDED];
    check(&[complete], all, "1 of 2 types");
    check(&[pending, copy, complete], all, "1 of 2 types");
    // Another's place.
    let park = plan.probes.iter().find(|probe| probe.program == "tokio_park").unwrap();
    check(&[park], planned, "");
    let places = |missing: &[Probe]| lost(&image, BIAS, missing, false).map(|lost| lost.places);
    assert_eq!(places(&[park.clone(), copy.clone()]), Some(vec![0x900]));
    assert_eq!(places(std::slice::from_ref(park)), None);
}

#[test]
fn without_polls_no_type_is_seen_to_end() {
    let plan = plan(&sample(), 0, &["tokio.poll".to_owned()]);
    assert!(plan.probes.iter().any(|probe| probe.program == "tokio_poll_begin"));
    assert!(plan.types.iter().all(|(_, id)| id & UNENDED != 0), "{:?}", plan.types);
    let named: BTreeSet<u32> = plan.futures.keys().copied().collect();
    assert_eq!(named, plan.types.iter().map(|(_, id)| *id).collect());
}

#[test]
fn where_one_begin_is_not_to_be_used_each_type_has_its_own() {
    let begins = |plan: &Plan| -> Vec<u64> {
        let begins = plan.probes.iter().filter(|probe| probe.program == "tokio_poll_begin");
        begins.map(|probe| probe.site.vaddr).collect()
    };
    assert_eq!(begins(&tokio(|_| {})), [0x10]);
    let plan = tokio(|image| not_proved(image, TokioHook::PollBegin));
    assert_eq!(begins(&plan), [0x1000, 0x2000, 0x3000]);
    check(&plan, &[]);
    // One of them cannot be used either: what there is is used, and the rest told.
    let plan = tokio(|image| {
        not_proved(image, TokioHook::PollBegin);
        image.polls[1].site.as_mut().unwrap().args.clear();
    });
    assert_eq!(begins(&plan), [0x1000, 0x3000]);
    check(
        &plan,
        &[("tokio.poll", "raw::poll: its arguments are not in their registers")],
    );
}

#[test]
fn a_wakes_argument_is_told_by_its_place() {
    let place = |arg: ArgLocation| {
        let plan = tokio(|image| {
            let sites = image.hooks.get_mut(&TokioHook::Schedule).unwrap();
            sites[0].as_mut().unwrap().args = vec![arg];
        });
        (plan.sites[0].1, said(&plan.states[1].coverage))
    };
    assert_eq!(
        place(ArgLocation::Register(X86Register::Rdi)),
        (IN_RDI, "full".to_owned())
    );
    assert_eq!(place(ArgLocation::Stack(24)), (ON_STACK | 24, "full".to_owned()));
    let (next, text) = place(ArgLocation::Register(X86Register::Rax));
    assert_eq!(next, IN_RSI);
    assert_eq!(text, "in part: Schedule: its argument is in an unexpected place");
}
