//! Ps that are handed off: by sysmon, since a system call takes long, or by the thread that cannot go on.

use std::collections::BTreeMap;

use agent_common::histogram::Series;

use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric},
    origins,
    signals::metric,
    target::Target,
    telemetry::processor::{HANDOFF_REASON, HANDOFFS},
};

pub const NAME: &str = "go.handoff";

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
pub fn metrics(target: &Target, reading: &Reading) -> Vec<Metric> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (caller, count) in reading.counts(target.slot, Series::GoHandoff) {
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
