//! What to attach to a tokio process.

use agent_common::{
    target::IS_TOKIO,
    tokio::{
        poll::{BLOCKING, UNENDED},
        wake::{IN_RDI, IN_RDX, IN_RSI, ON_STACK},
    },
};

use super::{Coverage, Failure, Plan, Probe, coverage, usable};
use crate::{
    inspect::{
        ArgLocation, HeaderLayout, ProbeSite, SiteError, TaskKind, TaskVtable, TokioHook, TokioImage, X86Register,
    },
    signals,
};

type Site = Result<ProbeSite, SiteError>;

/// The program that sees a poll end.
pub(super) const POLL_END: &str = "tokio_poll_end";

const HEADER: [ArgLocation; 1] = [ArgLocation::Register(X86Register::Rdi)];

/// The plan of a tokio process.
pub(super) fn plan(image: &TokioImage, bias: u64) -> Plan {
    let mut plan = Plan {
        flags: IS_TOKIO,
        ..Plan::default()
    };
    plan.tokio_vtable = image.header.vtable_offset as u32;
    plan.tokio_id_offset = (HeaderLayout::ID_WORD * 8) as u32;
    plan.types = types(image, bias, &[]);
    for (vtable, (_, id)) in image.vtables.iter().zip(&plan.types) {
        plan.futures
            .insert(*id, vtable.future.label().unwrap_or_else(|| "unknown".to_owned()));
    }
    plan_poll(image, &mut plan);
    plan_wake(image, bias, &mut plan);
    plan
}

/// Types of tasks by their vtables, while some probes are `missing`.
pub(super) fn types(image: &TokioImage, bias: u64, missing: &[Probe]) -> Vec<(u64, u32)> {
    let types = image.vtables.iter().enumerate();
    let of = |(index, vtable): (usize, &TaskVtable)| {
        let mut id = index as u32 + 1;
        if vtable.kind == TaskKind::Blocking {
            id |= BLOCKING;
        }
        if !has_end(image, vtable, missing) {
            id |= UNENDED;
        }
        (vtable.vaddr.wrapping_add(bias), id)
    };
    types.map(of).collect()
}

/// What is to say of ends of polls that are not seen since probes are `missing`; None where there are none.
pub(super) fn lost_ends(image: &TokioImage, missing: &[Probe]) -> Option<Failure> {
    let tasks = || image.vtables.iter().filter(|vtable| vtable.kind == TaskKind::Async);
    let is_lost = |vtable: &&TaskVtable| has_end(image, vtable, &[]) && !has_end(image, vtable, missing);
    let (of, lost) = (tasks().count(), tasks().filter(is_lost).count());
    (lost > 0).then(|| Failure {
        signal: signals::tokio::poll::NAME,
        essential: false,
        reason: format!(
            "the ends of polls of {lost} of {of} types of tasks are not all seen, as these probes are not in place: how often these are \
             polled is told, how long is not"
        ),
    })
}

/// Whether the ends of polls of a type are seen: it calls functions for them, and these have places, none of which is that of a probe
/// that is `missing`.
fn has_end(image: &TokioImage, vtable: &TaskVtable, missing: &[Probe]) -> bool {
    let is_missing = |site: &ProbeSite| {
        let mut ends = missing.iter().filter(|probe| probe.program == POLL_END);
        ends.any(|probe| probe.site.file_offset == site.file_offset)
    };
    let is_there = |hook| {
        let usable = sites(image, hook)
            .iter()
            .filter_map(|site| usable(Some(site), &HEADER).ok());
        let mut missing = usable.map(|site| is_missing(&site)).peekable();
        missing.peek().is_some() && !missing.any(|missing| missing)
    };
    let pending = vtable.kind == TaskKind::Blocking || is_there(TokioHook::PollEndPending);
    vtable.calls_poll_end && pending && is_there(TokioHook::PollEndComplete)
}

/// No poll is seen to end, as tokio.poll was left out: which task a thread polls is not known then.
pub(super) fn without_ends(plan: &mut Plan) {
    for (_, id) in &mut plan.types {
        *id |= UNENDED;
    }
    let futures = std::mem::take(&mut plan.futures).into_iter();
    plan.futures = futures.map(|(id, name)| (id | UNENDED, name)).collect();
}

fn plan_poll(image: &TokioImage, plan: &mut Plan) {
    let signal = signals::tokio::poll::NAME;
    let mut others = Vec::new();
    let find = |sites: &mut dyn Iterator<Item = &Site>, program, arguments: &[ArgLocation], essential: bool| {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        for site in sites {
            match usable(Some(site), arguments) {
                Ok(site) => found.push(Probe {
                    signal,
                    also: essential.then_some(signals::tokio::wake::NAME),
                    essential,
                    program,
                    site,
                }),
                Err(reason) => refused.push(reason),
            }
        }
        (found, refused)
    };
    let (mut begins, mut missing) = find(
        &mut sites(image, TokioHook::PollBegin).iter(),
        "tokio_poll_begin",
        &HEADER,
        true,
    );
    if begins.is_empty() || !missing.is_empty() {
        // Each type's own function is its begin as well, at one probe a type.
        let (polls, refused) = find(
            &mut image.polls.iter().map(|poll| &poll.site),
            "tokio_poll_begin",
            &HEADER,
            true,
        );
        if refused.is_empty() && !polls.is_empty() {
            (begins, missing) = (polls, Vec::new());
        } else if begins.is_empty() {
            begins = polls;
            missing.extend(refused);
        }
        if begins.is_empty() {
            let none = "where polls begin was not looked for in this binary".to_owned();
            missing.extend(Some(none).filter(|_| missing.is_empty()));
            return plan.set(signal, Coverage::Off(missing.join("; ")));
        }
    }
    let mut unseen = Vec::new();
    for hook in [TokioHook::PollEndPending, TokioHook::PollEndComplete] {
        let (found, refused) = find(&mut sites(image, hook).iter(), POLL_END, &HEADER, false);
        others.extend(found);
        let inlined = |site: &Site| matches!(site, Err(SiteError::NoSuchFunction { .. }));
        if !sites(image, hook).iter().all(inlined) {
            unseen.extend(refused);
        }
    }
    let (found, refused) = find(&mut sites(image, TokioHook::Park).iter(), "tokio_park", &[], false);
    others.extend(found);
    missing.extend(refused);
    missing.extend(unended(image, &unseen));
    if image.rejected_vtables > 0 {
        missing.push(format!(
            "{} places refer to poll functions but are no task vtable as known",
            image.rejected_vtables
        ));
    }
    plan.probes.extend(begins);
    plan.probes.extend(others);
    plan.set(signal, coverage(missing));
}

/// What is to say of types of tasks the ends of whose polls are not seen; `reasons` are those of functions that are there.
fn unended(image: &TokioImage, reasons: &[String]) -> Option<String> {
    let tasks = || image.vtables.iter().filter(|vtable| vtable.kind == TaskKind::Async);
    let (of, unended) = (
        tasks().count(),
        tasks().filter(|vtable| !has_end(image, vtable, &[])).count(),
    );
    let (why, way_out) = if reasons.is_empty() {
        (
            "the compiler inlined them, as with LTO".to_owned(),
            "`lto = false` and `opt-level = 3`",
        )
    } else {
        (reasons.join("; "), "`opt-level = 3`")
    };
    (unended > 0).then(|| {
        format!(
            "the ends of polls of {unended} of {of} types of tasks are not all to be seen ({why}): how often these are polled is told, how \
             long is not. A build with {way_out} in its profile tells both"
        )
    })
}

fn plan_wake(image: &TokioImage, bias: u64, plan: &mut Plan) {
    let signal = signals::tokio::wake::NAME;
    // Without the end of the wait there is nothing to measure.
    if !plan.probes.iter().any(|probe| probe.signals().any(|of| of == signal)) {
        return plan.set(signal, Coverage::Off("no poll can be seen in this binary".to_owned()));
    }
    let (mut probes, mut missing) = (Vec::new(), Vec::new());
    let hooks = [
        (TokioHook::Schedule, "tokio_schedule"),
        (TokioHook::Yield, "tokio_schedule"),
        (TokioHook::Spawn, "tokio_spawn"),
    ];
    for (hook, program) in hooks {
        for site in sites(image, hook) {
            let found = site
                .as_ref()
                .map_err(ToString::to_string)
                .and_then(|site| Ok((site, place(site)?)));
            match found {
                Ok((site, place)) => {
                    plan.sites.push((site.vaddr.wrapping_add(bias), place));
                    probes.push(Probe {
                        signal,
                        also: None,
                        essential: false,
                        program,
                        site: site.clone(),
                    });
                }
                Err(reason) => missing.push(reason),
            }
        }
    }
    if probes.is_empty() {
        plan.drop_probes(|of| of == signal);
        return plan.set(signal, Coverage::Off(missing.join("; ")));
    }
    plan.probes.extend(probes);
    plan.set(signal, coverage(missing));
}

/// Where a site's only argument is, in the kernel side's code.
fn place(site: &ProbeSite) -> Result<u32, String> {
    match site.args.as_slice() {
        [ArgLocation::Register(X86Register::Rdi)] => Ok(IN_RDI),
        [ArgLocation::Register(X86Register::Rsi)] => Ok(IN_RSI),
        [ArgLocation::Register(X86Register::Rdx)] => Ok(IN_RDX),
        [ArgLocation::Stack(offset)] if *offset >= 0 => Ok(ON_STACK | *offset as u32),
        _ => Err(format!(
            "{}: its argument is where no program looks for it",
            site.function
        )),
    }
}

fn sites(image: &TokioImage, hook: TokioHook) -> &[Site] {
    image.hooks.get(&hook).map(Vec::as_slice).unwrap_or_default()
}
