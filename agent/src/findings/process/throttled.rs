//! A cgroup whose CPU quota is used up.

use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::process::quota,
};

pub const RULE: Rule = Rule {
    name: "cpu.throttled",
    says: "A cgroup is throttled: it used up its CPU quota.",
    evidence: "quota; part of its periods that were throttled; throttled time, summed over cores; CPU use of the process",
    advice: "raise the quota of the cgroup that is named, or let the service do less at once",
    threshold: "10 % of the periods and 0.02 s per second, of at least 20 periods: a burst now and then that is over in a period delays nobody for long",
    instead_of: &["cpu.no_core"],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// Periods in which it was throttled, of all.
const PERIODS: f64 = 0.1;
/// Periods that must have been.
const LEAST: u64 = 20;
/// s/s.
const TIME: f64 = 0.02;

/// What became of a cgroup between two readings.
pub(in crate::findings) struct Throttled<'a> {
    pub path: &'a str,
    pub quota: f64,
    /// Part of its periods.
    pub periods: f64,
    /// s/s, summed over cores.
    pub time: f64,
}

/// The cgroup that was throttled most, if one was throttled enough to matter.
pub(in crate::findings) fn most<'a>(change: &Change<'a>) -> Option<Throttled<'a>> {
    let of = |now: &'a crate::cgroup::Cgroup| {
        let before = change.first().quotas.iter().find(|before| before.path == now.path)?;
        let more = |of: fn(&crate::cgroup::Usage) -> u64| of(&now.usage).saturating_sub(of(&before.usage));
        let periods = more(|usage| usage.periods);
        let throttled = Throttled {
            path: &now.path,
            quota: now.usage.quota,
            periods: more(|usage| usage.throttled_periods) as f64 / periods.max(1) as f64,
            time: more(|usage| usage.throttled) as f64 / 1e9 / change.seconds(),
        };
        let is_over = change.is_over(throttled.periods, PERIODS) && change.is_over(throttled.time, TIME);
        (periods >= LEAST && is_over).then_some(throttled)
    };
    let all = change.now().quotas.iter().filter_map(of);
    all.max_by(|one, other| one.time.total_cmp(&other.time))
}

/// The evidence of a cgroup that is throttled.
pub(in crate::findings) fn evidence(throttled: &Throttled<'_>, change: &Change<'_>) -> Vec<Figure> {
    let mut evidence = vec![
        Figure::new("quota", throttled.quota, "cores"),
        Figure::new("throttled periods", 100.0 * throttled.periods, "%"),
        Figure::new("throttled", throttled.time, "s/s"),
    ];
    if change.now().cpu_time.is_some() {
        let used = change.rate(|facts| facts.cpu_time.unwrap_or(0)) / 1e9;
        evidence.push(Figure::new("CPU of the process", used, "cores"));
    }
    evidence
}

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(quota::NAME)?;
    let Some(throttled) = most(change) else {
        return Ok(None);
    };
    Ok(Some(Finding {
        sentence: format!(
            "cgroup {} is throttled in {} % of its periods: its quota of {} cores is used up",
            throttled.path,
            short((100.0 * throttled.periods).round()),
            short(throttled.quota)
        ),
        evidence: evidence(&throttled, change),
        advice: format!(
            "raise the quota of {}, or let the service do less at once",
            throttled.path
        ),
        sureness,
        explained: throttled.time,
        subject: throttled.path.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::tests::{cgroup, check, check_not};

    #[test]
    fn a_quota_that_is_used_up_is_found() {
        check(
            &RULE,
            |facts, s| {
                facts.quotas = vec![
                    cgroup(2.0, s, 0.4, 0.3),
                    crate::cgroup::Cgroup {
                        path: "/pod".to_owned(),
                        ..cgroup(3.0, s, 0.2, 0.1)
                    },
                ];
            },
            "cgroup /pod/shop is throttled in 40 % of its periods: its quota of 2 cores is used up",
            0.3,
        );
    }

    #[test]
    fn a_burst_now_and_then_is_not() {
        check_not(&RULE, |facts, s| facts.quotas = vec![cgroup(2.0, s, 0.05, 0.1)]);
        check_not(&RULE, |facts, s| facts.quotas = vec![cgroup(2.0, s, 0.5, 0.01)]);
        check_not(&RULE, |facts, s| facts.quotas = vec![cgroup(2.0, s / 60.0, 1.0, 60.0)]);
        // As it was before the minute.
        check_not(&RULE, |facts, _| facts.quotas = vec![cgroup(2.0, 1000.0, 0.5, 0.5)]);
    }
}
