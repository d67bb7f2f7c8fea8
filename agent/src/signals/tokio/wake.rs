//! How long tasks wait between their wake (or spawn, or yield) and their poll.

use agent_common::{
    histogram::Series,
    hits::HitKind,
    tokio::wake::{IN_RDI, IN_RDX, IN_RSI, ON_STACK},
};

use super::sites;

use crate::{
    aggregate::store::Reading,
    attach::plan::{Failure, Plan, Probe, coverage},
    inspect::{ArgLocation, ProbeSite, TokioHook, TokioImage, X86Register},
    model::Metric,
    signal::Coverage,
    signals::points::distribution,
    signals::summary::Summary,
    signals::{Check, Signal, State},
    target::Target,
    telemetry::tokio::wake::{DEFS, WAKE_TO_POLL_DURATION},
};

pub const NAME: &str = "tokio.wake";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::TokioSchedule, HitKind::TokioSpawn],
    series: &[Series::TokioWake],
    summary: Some(|target, _, reading| {
        Summary::default().whole(0, "task wake → poll", reading.whole(target.id, Series::TokioWake))
    }),
    check: Some(Check {
        what: "wakes",
        count: |target, _, reading| reading.whole(target.id, Series::TokioWake).count(),
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

/// Where tasks are woken, spawned, and yield.
pub fn plan(image: &TokioImage, bias: u64, plan: &mut Plan) {
    let signal = NAME;
    // Without the end of the wait there is nothing to measure.
    if !plan.probes.iter().any(|probe| probe.signals().any(|of| of == signal)) {
        return plan.set(signal, Coverage::Off("no poll is visible in this binary".to_owned()));
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

/// What the signal loses when the kernel's map had no space for `missing` of its sites.
pub fn without_sites(plan: &Plan, missing: usize) -> Option<Failure> {
    (missing > 0).then(|| Failure {
        signal: NAME,
        essential: false,
        reason: format!(
            "{missing} of {} places where tasks are woken are not observed: the kernel map is full",
            plan.sites.len()
        ),
    })
}

/// Where a site's only argument is, in the kernel side's code.
fn place(site: &ProbeSite) -> Result<u32, String> {
    match site.args.as_slice() {
        [ArgLocation::Register(X86Register::Rdi)] => Ok(IN_RDI),
        [ArgLocation::Register(X86Register::Rsi)] => Ok(IN_RSI),
        [ArgLocation::Register(X86Register::Rdx)] => Ok(IN_RDX),
        [ArgLocation::Stack(offset)] if *offset >= 0 => Ok(ON_STACK | *offset as u32),
        _ => Err(format!("{}: its argument is in an unexpected place", site.function)),
    }
}

/// Wake-to-poll delay of all tasks as one histogram.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    distribution(
        &WAKE_TO_POLL_DURATION,
        target,
        state,
        Series::TokioWake,
        reading,
        |_| Vec::new(),
    )
}
