//! The CPU quotas that a process is under, and which of them throttles it.

use std::collections::HashMap;

use crate::{
    attach::plan::{Coverage, SignalState},
    cgroup::{self, Cgroup, Usage},
    clock,
    model::{Attribute, Metric, MonoNs, Point, PointData},
    signals::metric,
    target::Target,
    telemetry::quota::{CGROUP_PATH, CPU_PERIODS, CPU_QUOTA, CPU_THROTTLED_PERIODS, CPU_THROTTLED_TIME},
};

pub const NAME: &str = "process.quota";

/// The cgroups with a quota that a process is in, and what became of it since it is watched.
#[derive(Debug, Default, PartialEq)]
pub struct Quotas {
    /// At the last look, innermost first.
    now: Vec<Cgroup>,
    /// By path: when it was first seen, and its account then.
    first: HashMap<String, (MonoNs, Usage)>,
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

    /// The path of the cgroup that throttles the process: the one that was throttled for longest between the last two looks;
    /// where none was, the one that did it before, and at first the one with the least quota.
    pub fn throttling(&self) -> Option<&str> {
        self.throttling.as_deref()
    }

    fn note(&mut self, now: MonoNs, found: Vec<Cgroup>) {
        let before = |cgroup: &Cgroup| self.now.iter().find(|before| before.path == cgroup.path);
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
        self.first
            .retain(|path, _| found.iter().any(|cgroup| cgroup.path == *path));
        for cgroup in &found {
            self.first.entry(cgroup.path.clone()).or_insert((now, cgroup.usage));
        }
        (self.now, self.looked) = (found, now);
    }
}

/// Begins to follow the quotas of a process.
pub fn begin(target: &mut Target) {
    let coverage = match cgroup::of(target.process.pid) {
        Some(_) => Coverage::Full,
        None => Coverage::Off("its cgroup is not to be seen from here".to_owned()),
    };
    target.states.push(SignalState { signal: NAME, coverage });
    target.quotas = Some(Quotas::default());
    look(target);
}

/// Reads them again.
pub fn look(target: &mut Target) {
    if let Some(quotas) = &mut target.quotas
        && let Some(found) = cgroup::of(target.process.pid)
    {
        quotas.note(clock::now(), found);
    }
}

/// Who throttles, where something was throttled.
pub fn attribute(target: &Target, throttled: u64) -> Option<Attribute> {
    let path = target.quotas.as_ref()?.throttling().filter(|_| throttled > 0)?;
    Some(Attribute::new(CGROUP_PATH, path.to_owned()))
}

/// The account of each of its cgroups that has a quota.
pub fn metrics(target: &Target) -> Vec<Metric> {
    let Some(quotas) = &target.quotas else {
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

    fn check(looks: &[&[(&str, f64, u64)]], expected: Option<&str>) {
        let mut quotas = Quotas::default();
        for look in looks {
            let cgroup = |(path, quota, throttled): &(&str, f64, u64)| Cgroup {
                path: (*path).to_owned(),
                usage: Usage {
                    quota: *quota,
                    throttled: *throttled,
                    ..Usage::default()
                },
            };
            quotas.note(MonoNs(1), look.iter().map(cgroup).collect());
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
}
