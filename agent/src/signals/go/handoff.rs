//! Ps that are handed off: by sysmon, since a system call takes long, or by the thread that cannot go on.

use std::collections::BTreeMap;

use agent_common::{go::handoff::IN_LINK_REGISTER, histogram::Series, hits::HitKind};

use crate::{
    aggregate::store::Reading,
    attach::plan::{Plan, found},
    inspect::{ArgLocation, GoHook, GoImage, SiteCost},
    model::{Attribute, Metric},
    signals::go::origins,
    signals::points::metric,
    signals::{Signal, State},
    target::Target,
    telemetry::go::handoff::{DEFS, HANDOFF_REASON, HANDOFFS},
};

pub const NAME: &str = "go.handoff";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::GoHandoff],
    series: &[Series::GoHandoff],
    ..Signal::new(NAME, &DEFS, metrics)
};

/// Where a P that is handed off is seen, and where its caller stands then.
pub fn plan(image: &GoImage, plan: &mut Plan) {
    let seen = found(image.sites.get(&GoHook::HandOff)).and_then(|site| {
        let lost = || {
            format!(
                "{}: its return address is not known at any usable instruction",
                site.function
            )
        };
        let caller = match (site.cost, site.args.as_slice()) {
            (SiteCost::SingleStepped, _) => {
                return Err(format!("{}: no instruction that the kernel emulates", site.function));
            }
            (_, [ArgLocation::Stack(above)]) => u32::try_from(*above).map_err(|_| lost())?,
            (_, [ArgLocation::X(30)]) => IN_LINK_REGISTER,
            _ => return Err(lost()),
        };
        Ok((site.clone(), caller))
    });
    let site = seen.map(|(site, caller)| {
        plan.go.handoff_return = caller;
        site
    });
    plan.set_one(NAME, "go_handoff", site);
}

/// Who hands a P off, by the function that calls runtime.handoffp (go1.18 to go1.27, runtime/proc.go).
fn reason(caller: &str) -> &'static str {
    const CALLERS: [(&str, &str); 5] = [
        ("runtime.retake", "sysmon"),
        ("runtime.entersyscallblock", "blocking_call"),
        ("runtime.stoplockedm", "locked_thread"),
        ("runtime.mexit", "thread_exit"),
        ("runtime.forEachP", "safe_point"),
    ];
    let found = CALLERS.into_iter().find(|(name, _)| caller.starts_with(name));
    found.map_or("other", |(_, reason)| reason)
}

/// How many were handed off, by reason.
pub fn metrics(target: &Target, _: &State, reading: &Reading) -> Vec<Metric> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (caller, count) in reading.counts(target.id, Series::GoHandoff) {
        // What is kept is the return address: the call is just before it.
        let caller = origins::function(caller.wrapping_sub(1), target);
        *counts.entry(reason(&caller)).or_default() += count;
    }
    let points = counts.into_iter().map(|(reason, count)| {
        let attributes = vec![Attribute::new(HANDOFF_REASON, reason)];
        target.sum(count, reading.time, attributes)
    });
    metric(&HANDOFFS, points.collect())
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn callers_are_reasons() {
        for (caller, expected) in [
            ("runtime.retake", "sysmon"),
            ("runtime.entersyscallblock.func3", "blocking_call"),
            ("runtime.entersyscallblock_handoff", "blocking_call"),
            ("runtime.stoplockedm", "locked_thread"),
            ("runtime.forEachPInternal", "safe_point"),
            ("unknown", "other"),
        ] {
            assert_eq!(reason(caller), expected, "{caller}");
        }
    }
}
