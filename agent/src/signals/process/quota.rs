//! The CPU quotas that a process is under, and which of them throttles it.

use std::collections::HashMap;

use crate::{
    cgroup::{self, Cgroup, Usage},
    clock,
    model::{Attribute, Metric, MonoNs, Point, PointData},
    signal::{Coverage, LEFT_OUT, SignalState},
    signals::points::metric,
    signals::{Signal, State},
    target::Target,
    telemetry::process::quota::{CGROUP_PATH, CPU_PERIODS, CPU_QUOTA, CPU_THROTTLED_PERIODS, CPU_THROTTLED_TIME, DEFS},
};

pub const NAME: &str = "process.quota";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    start: Some(|target, state, _, _| start(target, state)),
    ..Signal::new(NAME, &DEFS, |target, state, _| metrics(target, state))
};

/// Accounts are not read more often than this when something was throttled, ns: the usual period of a quota.
const LOOKS_APART: u64 = 100_000_000;

/// The cgroups with a quota that a process is in, and what became of it since it is watched.
#[derive(Debug, Default, PartialEq)]
pub struct Quotas {
    /// At the last look, innermost first.
    now: Vec<Cgroup>,
    /// The same as metrics were last made.
    then: Vec<Cgroup>,
    /// By path: when it was first seen, and its account then.
    first: HashMap<String, (MonoNs, Usage)>,
    /// 0: never, as of a recorded process.
    looked: MonoNs,
    throttling: Option<String>,
}

impl Quotas {
    /// Of a recorded process: the cgroup that throttled it.
    pub fn recorded(throttling: String) -> Self {
        Self {
            throttling: Some(throttling),
            ..Self::default()
        }
    }

    /// The path of the cgroup that throttles the process: the one that was throttled for longest between the last two looks, and
    /// for metrics since they were last made; where none was, the one that did it before, and at first the one with the least
    /// quota.
    pub fn throttling(&self) -> Option<&str> {
        self.throttling.as_deref()
    }

    /// The cgroups with a quota at the last look, innermost first.
    pub fn cgroups(&self) -> &[Cgroup] {
        &self.now
    }

    /// A look as metrics are made.
    fn note(&mut self, now: MonoNs, found: Vec<Cgroup>) {
        self.compare(&found, |quotas| &quotas.then);
        self.first
            .retain(|path, _| found.iter().any(|cgroup| cgroup.path == *path));
        for cgroup in &found {
            self.first.entry(cgroup.path.clone()).or_insert((now, cgroup.usage));
        }
        self.then.clone_from(&found);
        (self.now, self.looked) = (found, now);
    }

    /// A look between.
    fn glance(&mut self, now: MonoNs, found: Vec<Cgroup>) {
        self.compare(&found, |quotas| &quotas.now);
        (self.now, self.looked) = (found, now);
    }

    fn is_due(&self, now: MonoNs) -> bool {
        self.looked.0 > 0 && now.0.saturating_sub(self.looked.0) >= LOOKS_APART
    }

    fn compare(&mut self, found: &[Cgroup], before: fn(&Self) -> &[Cgroup]) {
        let before = |cgroup: &Cgroup| before(self).iter().find(|before| before.path == cgroup.path);
        let longest = found
            .iter()
            .filter_map(|cgroup| {
                let before = before(cgroup)?.usage.throttled;
                let more = cgroup.usage.throttled.checked_sub(before).filter(|more| *more > 0)?;
                Some((more, cgroup))
            })
            .max_by_key(|(more, _)| *more)
            .map(|(_, cgroup)| cgroup);
        let same = || {
            found
                .iter()
                .find(|cgroup| self.throttling.as_ref() == Some(&cgroup.path))
        };
        let least = || {
            let quotas = found.iter();
            quotas.min_by(|one, other| one.usage.quota.total_cmp(&other.usage.quota))
        };
        let throttling = longest.or_else(same).or_else(least);
        self.throttling = throttling.map(|cgroup| cgroup.path.clone());
    }
}

/// How much there is to see of the quotas of a process, unless the user wants none of it.
pub fn state(pid: u32, without: &[String]) -> SignalState {
    let coverage = match cgroup::of(pid) {
        _ if without.iter().any(|name| name == NAME) => Coverage::Off(LEFT_OUT.to_owned()),
        Some(_) => Coverage::Full,
        None => Coverage::Lacking("its cgroup is not visible from here".to_owned()),
    };
    SignalState { signal: NAME, coverage }
}

/// Begins to follow the quotas of a process, unless the signal is off.
fn start(target: &Target, state: &mut State) {
    if !state.is_off(NAME) {
        state.quotas = Some(Quotas::default());
        look(target, state);
    }
}

/// Reads them again, as metrics are made.
pub fn look(target: &Target, state: &mut State) {
    if let Some(quotas) = &mut state.quotas
        && let Some(found) = cgroup::of(target.process.pid)
    {
        quotas.note(clock::now(), found);
    }
}

/// Reads them again where something of an event was throttled: that it was is in the kernel's account by now.
pub fn glance(target: &Target, state: &mut State, throttled: u64) {
    if throttled == 0 {
        return;
    }
    let now = clock::now();
    if let Some(quotas) = &mut state.quotas
        && quotas.is_due(now)
        && let Some(found) = cgroup::of(target.process.pid)
    {
        quotas.glance(now, found);
    }
}

/// Who throttles, where something was throttled.
pub fn attribute(state: &State, throttled: u64) -> Option<Attribute> {
    let path = state.quotas.as_ref()?.throttling().filter(|_| throttled > 0)?;
    Some(Attribute::new(CGROUP_PATH, path.to_owned()))
}

/// The account of each of its cgroups that has a quota.
pub fn metrics(target: &Target, state: &State) -> Vec<Metric> {
    let Some(quotas) = &state.quotas else {
        return Vec::new();
    };
    let point = |value: &dyn Fn(Usage, Usage) -> PointData| -> Vec<Point> {
        let of = |cgroup: &Cgroup| {
            let (start, before) = *quotas.first.get(&cgroup.path)?;
            let attributes = vec![Attribute::new(CGROUP_PATH, cgroup.path.clone())];
            Some(Point {
                data: value(cgroup.usage, before),
                ..target.sum_from(start, 0, quotas.looked, attributes)
            })
        };
        quotas.now.iter().filter_map(of).collect()
    };
    let sum = |now: u64, before: u64| PointData::Sum(now.saturating_sub(before) as i64);
    let quota = point(&|now, _| PointData::Real(now.quota));
    let periods = point(&|now, before| sum(now.periods, before.periods));
    let throttled = point(&|now, before| sum(now.throttled_periods, before.throttled_periods));
    let time = point(&|now, before| PointData::Time(now.throttled.saturating_sub(before.throttled)));
    [
        metric(&CPU_QUOTA, quota),
        metric(&CPU_PERIODS, periods),
        metric(&CPU_THROTTLED_PERIODS, throttled),
        metric(&CPU_THROTTLED_TIME, time),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(look: &[(&str, f64, u64)]) -> Vec<Cgroup> {
        let cgroup = |(path, quota, throttled): &(&str, f64, u64)| Cgroup {
            path: (*path).to_owned(),
            usage: Usage {
                quota: *quota,
                throttled: *throttled,
                ..Usage::default()
            },
        };
        look.iter().map(cgroup).collect()
    }

    fn check(looks: &[&[(&str, f64, u64)]], expected: Option<&str>) {
        let mut quotas = Quotas::default();
        for look in looks {
            quotas.note(MonoNs(1), found(look));
        }
        assert_eq!(quotas.throttling(), expected, "{looks:?}");
    }

    #[test]
    fn the_one_that_throttles_is_told_by_its_own_account() {
        check(&[], None);
        check(&[&[]], None);
        // Nothing known but the quotas.
        check(&[&[("/a/b", 2.0, 90), ("/a", 1.0, 10)]], Some("/a"));
        // The wider one of two may be used up by others.
        let (first, second) = (
            [("/a/b", 0.5, 90), ("/a", 1.0, 10)],
            [("/a/b", 0.5, 90), ("/a", 1.0, 11)],
        );
        check(&[&first, &second], Some("/a"));
        // It stays so while neither throttles.
        check(&[&first, &second, &second], Some("/a"));
        check(&[&first, &second, &[("/a/b", 0.5, 95), ("/a", 1.0, 12)]], Some("/a/b"));
        // Moved to another cgroup.
        check(&[&first, &second, &[("/c", 3.0, 0)]], Some("/c"));
        check(&[&first, &[]], None);
    }

    #[test]
    fn what_is_throttled_between_metrics_is_told_at_once() {
        let mut quotas = Quotas::default();
        assert!(!quotas.is_due(MonoNs(LOOKS_APART)));
        let told = |quotas: &Quotas, expected| assert_eq!(quotas.throttling(), Some(expected));
        quotas.note(MonoNs(1), found(&[("/a/b", 1.0, 0), ("/a", 2.0, 500)]));
        told(&quotas, "/a/b");
        assert!(!quotas.is_due(MonoNs(LOOKS_APART)) && quotas.is_due(MonoNs(1 + LOOKS_APART)));
        quotas.glance(MonoNs(2), found(&[("/a/b", 1.0, 0), ("/a", 2.0, 590)]));
        told(&quotas, "/a");
        quotas.glance(MonoNs(3), found(&[("/a/b", 1.0, 20), ("/a", 2.0, 590)]));
        told(&quotas, "/a/b");
        // All that came in since the last metrics.
        quotas.note(MonoNs(4), found(&[("/a/b", 1.0, 20), ("/a", 2.0, 590)]));
        told(&quotas, "/a");
        quotas.note(MonoNs(5), found(&[("/a/b", 1.0, 21), ("/a", 2.0, 590)]));
        told(&quotas, "/a/b");
    }
}
