//! Judges rules at each reading. It keeps the facts of the last minute, and what holds: a finding begins when its rule held at two readings,
//! and ends when it has not held for a while, so that it does not flicker.

use agent_common::hits::Plane;

use super::{Change, Facts, Finding, RULES, Rule, Verdict, facts::Open};
use crate::{
    aggregate::store::Reading,
    model::{Attribute, Event, Metric, MonoNs, PointData},
    signal::SignalState,
    signals::{State, points::metric},
    target::Target,
    telemetry::findings::{
        ADVICE, EVIDENCE, EXPLAINED, FINDING, FINDING_BEGINS, FINDING_ENDS, FINDING_EXPLAINED, NAME, SENTENCE, SINCE,
        SURENESS,
    },
};

/// How far back facts are compared, ns.
const MINUTE: u64 = 60_000_000_000;
/// Readings that are nearer to each other than this are not all kept, ns.
const APART: u64 = 3_000_000_000;
/// Facts of less time than this say nothing, s.
const LEAST: f64 = 4.5;
/// A rule must hold for so long, ns, unless one judgement is enough.
const BEGINS: u64 = 3_000_000_000;
/// And a finding ends when its rule has not held for so long, ns.
const ENDS: u64 = 15_000_000_000;
/// What is stated of a finding in metrics is stated anew when the time that it explains has changed by this factor.
const CHANGED: f64 = 2.0;

/// Judges the rules of one target.
#[derive(Debug, Default)]
pub struct Judge {
    samples: Vec<Facts>,
    /// In the order of [`RULES`]; empty before the first judgement.
    cases: Vec<Case>,
    /// Begins and ends that were not taken yet.
    events: Vec<Event>,
}

/// A rule, as it was judged lately.
#[derive(Debug, Default)]
struct Case {
    /// Since when it holds without a break, and since when it does not.
    holds: Option<MonoNs>,
    fails: Option<MonoNs>,
    raised: Option<Raised>,
}

/// A finding that began and has not ended.
#[derive(Clone, Debug)]
pub struct Raised {
    pub since: MonoNs,
    /// As of the last reading at which the rule held.
    pub now: Finding,
    /// As metrics state it: with the figures of an earlier reading, so that a series does not change at each.
    pub stated: Finding,
}

/// What was found, and the rules that could not be judged, with the reason.
pub type Found = (Vec<(&'static Rule, Finding)>, Vec<(&'static Rule, String)>);

impl Judge {
    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Takes note of a reading; nothing is judged.
    pub fn look(&mut self, target: &Target, state: &State, reading: &Reading, planes: [Open; Plane::COUNT]) {
        let facts = Facts::gather(target, state, reading, planes);
        self.add(facts);
    }

    fn add(&mut self, facts: Facts) {
        self.samples.push(facts);
        // Between the last two that stand apart.
        if let [.., before, last, _] = self.samples.as_slice()
            && last.time.0.saturating_sub(before.time.0) < APART
        {
            self.samples.remove(self.samples.len() - 2);
        }
        let now = self.samples[self.samples.len() - 1].time.0;
        while self.samples.len() > 2 && now.saturating_sub(self.samples[1].time.0) >= MINUTE {
            self.samples.remove(0);
        }
    }

    /// What each rule says of the readings until now.
    fn verdicts(&self, states: &[SignalState], pid: u32) -> Option<Vec<Verdict>> {
        let mut change = Change::of(&self.samples, states, pid).filter(|change| change.seconds() >= LEAST)?;
        let verdict = |(at, rule): (usize, &Rule)| {
            change.held = self.cases.get(at).is_some_and(|case| case.raised.is_some());
            (rule.judge)(&change)
        };
        let mut verdicts: Vec<Verdict> = RULES.iter().enumerate().map(verdict).collect();
        let holding = RULES
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| matches!(verdict, Ok(Some(_))));
        let less: Vec<&str> = holding.flat_map(|(rule, _)| rule.instead_of).copied().collect();
        for (rule, verdict) in RULES.iter().zip(&mut verdicts) {
            if less.contains(&rule.name) && verdict.is_ok() {
                *verdict = Ok(None);
            }
        }
        Some(verdicts)
    }

    /// What is found at once, without the delay that keeps findings from flickering.
    pub fn found(&self, states: &[SignalState], pid: u32) -> Found {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        let verdicts = self.verdicts(states, pid);
        let too_few = || vec![Err("too few readings".to_owned()); RULES.len()];
        for (rule, verdict) in RULES.iter().zip(verdicts.unwrap_or_else(too_few)) {
            match verdict {
                Ok(Some(finding)) => found.push((rule, finding)),
                Ok(None) => {}
                Err(reason) => unknown.push((rule, reason)),
            }
        }
        found.sort_by(|(_, one), (_, other)| other.explained.total_cmp(&one.explained));
        (found, unknown)
    }

    /// Judges all rules by the readings until now.
    pub fn judge(&mut self, states: &[SignalState], pid: u32) {
        let Some(verdicts) = self.verdicts(states, pid) else {
            return;
        };
        let now = self.samples[self.samples.len() - 1].time;
        self.cases.resize_with(RULES.len(), Case::default);
        for ((rule, case), verdict) in RULES.iter().zip(&mut self.cases).zip(verdicts) {
            let event = case.note(rule, now, verdict.ok().flatten());
            self.events.extend(event);
        }
    }

    /// Findings that began and have not ended: those first that explain most.
    pub fn raised(&self) -> Vec<(&'static Rule, &Raised)> {
        let cases = RULES.iter().zip(&self.cases);
        let mut raised: Vec<_> = cases
            .filter_map(|(rule, case)| Some((rule, case.raised.as_ref()?)))
            .collect();
        raised.sort_by(|(_, one), (_, other)| other.now.explained.total_cmp(&one.now.explained));
        raised
    }

    /// Ends all findings: the target ended.
    pub fn end(&mut self, now: MonoNs) {
        for (rule, case) in RULES.iter().zip(&mut self.cases) {
            let ended = case.raised.take();
            self.events.extend(ended.map(|raised| event(rule, &raised, now, false)));
        }
    }

    /// Findings that began or ended since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A point for each finding.
    pub fn metrics(&self, target: &Target, time: MonoNs) -> Vec<Metric> {
        let raised = self.raised();
        let name = |rule: &Rule| Attribute::new(NAME, rule.name);
        let findings = raised.iter().map(|(rule, raised)| {
            let mut attributes = vec![name(rule)];
            attributes.extend(stated(&raised.stated));
            target.gauge(1, time, attributes)
        });
        let explained = raised.iter().map(|(rule, raised)| {
            let mut point = target.gauge(0, time, vec![name(rule)]);
            point.data = PointData::Real(raised.now.explained);
            point
        });
        [
            metric(&FINDING, findings.collect()),
            metric(&FINDING_EXPLAINED, explained.collect()),
        ]
        .concat()
    }
}

impl Case {
    /// Takes note of a judgement; gives the begin or the end of a finding.
    fn note(&mut self, rule: &'static Rule, now: MonoNs, finding: Option<Finding>) -> Option<Event> {
        let Some(finding) = finding else {
            self.holds = None;
            let since = *self.fails.get_or_insert(now);
            let is_over = now.0.saturating_sub(since.0) >= ENDS;
            let ended = self.raised.take_if(|_| is_over)?;
            return Some(event(rule, &ended, now, false));
        };
        self.fails = None;
        let since = *self.holds.get_or_insert(now);
        match &mut self.raised {
            Some(raised) => {
                if is_other(&raised.stated, &finding) {
                    raised.stated = finding.clone();
                }
                raised.now = finding;
                None
            }
            None if rule.at_once || now.0.saturating_sub(since.0) >= BEGINS => {
                let raised = self.raised.insert(Raised {
                    since,
                    now: finding.clone(),
                    stated: finding,
                });
                Some(event(rule, raised, now, true))
            }
            None => None,
        }
    }
}

/// Whether a finding is to be stated anew.
fn is_other(stated: &Finding, now: &Finding) -> bool {
    let (least, most) = (stated.explained.min(now.explained), stated.explained.max(now.explained));
    stated.subject != now.subject || stated.sureness != now.sureness || most >= CHANGED * least.max(0.001)
}

fn stated(finding: &Finding) -> [Attribute; 3] {
    [
        Attribute::new(SENTENCE, finding.sentence.clone()),
        Attribute::new(SURENESS, finding.sureness.name()),
        Attribute::new(EXPLAINED, finding.explained),
    ]
}

fn event(rule: &'static Rule, raised: &Raised, now: MonoNs, begins: bool) -> Event {
    let finding = &raised.now;
    let mut attributes = vec![Attribute::new(NAME, rule.name)];
    attributes.extend(stated(finding));
    let evidence = finding.evidence.iter().map(ToString::to_string);
    attributes.push(Attribute::new(EVIDENCE, evidence.collect::<Vec<_>>()));
    attributes.push(Attribute::new(ADVICE, finding.advice.clone()));
    let lasted = now.0.saturating_sub(raised.since.0) as f64 / 1e9;
    attributes.push(Attribute::new(SINCE, lasted));
    Event {
        name: if begins { FINDING_BEGINS } else { FINDING_ENDS },
        time: now,
        body: finding.sentence.clone(),
        is_warning: begins,
        attributes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{
        Sureness,
        tests::{cgroup, go, samples},
    };

    const S: u64 = 1_000_000_000;

    fn finding(explained: f64) -> Finding {
        Finding {
            sentence: format!("explains {explained}"),
            evidence: Vec::new(),
            advice: "none".to_owned(),
            sureness: Sureness::High,
            explained,
            subject: String::new(),
        }
    }

    /// Judgements ten seconds apart, from left to right, each with what it explains; '-' where the rule does not hold. What comes of each:
    /// '+' a begin, '!' an end, '.' nothing.
    #[track_caller]
    fn check(at_once: bool, judgements: &str, expected: &str) {
        let name = if at_once { "go.goroutine.leak" } else { "cpu.no_core" };
        let rule = crate::findings::rule(name).unwrap();
        assert_eq!(rule.at_once, at_once);
        let mut case = Case::default();
        let event = |(at, holds): (usize, char)| {
            let found = holds.to_digit(10).map(|explained| finding(explained.into()));
            match case.note(rule, MonoNs(at as u64 * 10 * S), found) {
                Some(event) if event.name == FINDING_BEGINS => '+',
                Some(_) => '!',
                None => '.',
            }
        };
        assert_eq!(judgements.chars().enumerate().map(event).collect::<String>(), expected);
    }

    #[test]
    fn findings_do_not_flicker() {
        check(false, "1-1-1-", "......");
        check(true, "1-1-1-", "+.....");
        check(false, "11-1-1---1", ".+......!.");
        check(false, "-11----11", "..+..!..+");
    }

    #[test]
    fn a_finding_is_stated_anew_when_it_changed_much() {
        let rule = crate::findings::rule("cpu.no_core").unwrap();
        let mut case = Case::default();
        let mut stated = Vec::new();
        for (at, explained) in [1.0, 1.0, 1.5, 1.9, 2.0, 3.0, 0.9].into_iter().enumerate() {
            case.note(rule, MonoNs(at as u64 * 10 * S), Some(finding(explained)));
            stated.extend(case.raised.as_ref().map(|raised| raised.stated.explained));
        }
        assert_eq!(stated, [1.0, 1.0, 1.0, 2.0, 2.0, 0.9]);
    }

    #[test]
    fn a_finding_takes_the_place_of_one_that_says_less() {
        let mut judge = Judge::default();
        let throttled = |facts: &mut Facts, s: f64| {
            facts.quotas = vec![cgroup(1.0, s, 0.9, 0.8)];
            go(facts).gomaxprocs = 8;
        };
        let mut begun = Vec::new();
        for facts in samples(throttled) {
            judge.add(facts);
            judge.judge(&[], 7);
            begun.extend(judge.take_events());
        }
        let names: Vec<&str> = judge.raised().iter().map(|(rule, _)| rule.name).collect();
        assert_eq!(names, ["go.gomaxprocs.above_quota"]);
        assert_eq!(begun.len(), 1);
        judge.end(MonoNs(u64::MAX));
        let ended = judge.take_events();
        assert_eq!((ended.len(), ended[0].name), (1, FINDING_ENDS));
        assert!(judge.raised().is_empty());
        let (found, unknown) = judge.found(&[], 7);
        let unknown: Vec<(&str, String)> = unknown.into_iter().map(|(rule, why)| (rule.name, why)).collect();
        assert_eq!((found.len(), unknown.as_slice()), (1, [].as_slice()));
    }

    #[test]
    fn a_minute_of_facts_is_kept() {
        let mut judge = Judge::default();
        for second in 0..200 {
            let facts = Facts {
                time: MonoNs(second * S),
                ..Facts::default()
            };
            judge.add(facts);
        }
        let (first, last) = (
            judge.samples[0].time.0 / S,
            judge.samples[judge.samples.len() - 1].time.0 / S,
        );
        assert!((136..=139).contains(&first) && last == 199, "{first} to {last}");
        assert!((15..25).contains(&judge.samples.len()), "{}", judge.samples.len());
    }
}
