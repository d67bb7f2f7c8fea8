//! GOMAXPROCS above the CPU quota.

use crate::{
    findings::{
        Change, Figure, Finding, Rule, Verdict,
        process::throttled::{evidence, most},
        short,
    },
    signals::{go::runtime, process::quota},
};

pub const RULE: Rule = Rule {
    name: "go.gomaxprocs.above_quota",
    says: "GOMAXPROCS is above the CPU quota, and the cgroup is throttled: goroutines run on more cores at once than the quota pays for, and then all of them stand still for the rest of the period.",
    evidence: "GOMAXPROCS; as cpu.throttled",
    advice: "set GOMAXPROCS to the quota, rounded up (go1.25 and later do it themselves, unless GOMAXPROCS is set, or go.mod has an older go line), or raise the quota",
    threshold: "as cpu.throttled, and GOMAXPROCS above the quota rounded up, and above 2, which is the least that go1.25 chooses. Without throttling it costs nothing",
    instead_of: &["cpu.throttled", "cpu.no_core"],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// The least that the runtime chooses itself under a quota (go1.25, runtime/cgroup_linux.go, adjustCgroupGOMAXPROCS).
const LEAST: f64 = 2.0;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(quota::NAME)?.min(change.needs(runtime::NAME)?);
    let go = change.go()?;
    let Some(throttled) = most(change) else {
        return Ok(None);
    };
    let fits = throttled.quota.ceil().max(LEAST);
    if go.now.gomaxprocs as f64 <= fits {
        return Ok(None);
    }
    let set = throttled.quota.ceil().max(1.0);
    let mut evidence = evidence(&throttled, change);
    evidence.insert(0, Figure::new("GOMAXPROCS", go.now.gomaxprocs as f64, ""));
    Ok(Some(Finding {
        sentence: format!(
            "GOMAXPROCS is {}, but cgroup {} allows {} cores, and is throttled in {} % of its periods",
            go.now.gomaxprocs,
            throttled.path,
            short(throttled.quota),
            short((100.0 * throttled.periods).round())
        ),
        evidence,
        advice: format!(
            "set GOMAXPROCS={} (go1.25 and later choose it themselves), or raise the quota",
            short(set)
        ),
        sureness,
        explained: throttled.time,
        subject: throttled.path.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::tests::{cgroup, check, check_not, go};

    #[test]
    fn more_processors_than_the_quota_pays_for_are_found() {
        check(
            &RULE,
            |facts, s| {
                facts.quotas = vec![cgroup(1.5, s, 0.9, 0.7)];
                go(facts).gomaxprocs = 8;
            },
            "GOMAXPROCS is 8, but cgroup /pod/shop allows 1.50 cores, and is throttled in 90 % of its periods",
            0.7,
        );
    }

    #[test]
    fn what_fits_or_is_not_throttled_is_fine() {
        // Throttled, but not for that: cpu.throttled says it.
        check_not(&RULE, |facts, s| {
            facts.quotas = vec![cgroup(1.5, s, 0.9, 0.7)];
            go(facts).gomaxprocs = 2;
        });
        check_not(&RULE, |facts, s| {
            facts.quotas = vec![cgroup(0.5, s, 0.9, 0.7)];
            go(facts).gomaxprocs = 2;
        });
        check_not(&RULE, |facts, s| {
            facts.quotas = vec![cgroup(1.5, s, 0.0, 0.0)];
            go(facts).gomaxprocs = 8;
        });
    }
}
