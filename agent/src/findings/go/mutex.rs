//! One mutex that most wait for.

use agent_common::hits::Plane;

use crate::{
    findings::{Change, Figure, Finding, Rule, Sureness, Verdict, short},
    signals::go::{goroutines, looks::Doing, sched},
};

pub const RULE: Rule = Rule {
    name: "go.mutex.contended",
    says: "Goroutines of one start function wait for a sync.Mutex or sync.RWMutex.",
    evidence: "time that they waited for locks; their part of all such waits; waits per second",
    advice: "`whywait goroutines --pid N --grouped` shows the stacks that wait for the lock; hold it for less (no I/O while it is held), or split it",
    threshold: "half a goroutine that waits at any time, half of it of one start function, 50 waits (or by looks at the goroutines: one and a half, at 3 looks): short waits for a lock are normal",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// s/s.
const WAITED: f64 = 0.5;
/// The same by a few looks.
const WAIT_AT_LOOKS: f64 = 1.5;
/// Of all waits for locks.
const PART: f64 = 0.5;
const COUNT: u64 = 50;
const LOOKS: u64 = 3;

/// Of the start function whose goroutines waited most.
struct Most {
    function: String,
    /// s/s.
    waited: f64,
    /// Of all waits.
    part: f64,
    /// Waits per second, where they were counted.
    rate: Option<f64>,
}

fn judge(change: &Change<'_>) -> Verdict {
    let go = change.go()?;
    if !go.now.names_mutexes {
        return Err("the runtime names waits for locks since go1.20".to_owned());
    }
    let by_probes = change.seen(sched::NAME, Plane::Probes);
    let (most, threshold, sureness) = match by_probes {
        Ok(sureness) => (by_waits(change), WAITED, sureness),
        Err(_) => {
            let at_most = change.needs(goroutines::NAME)?;
            (by_looks(change)?, WAIT_AT_LOOKS, at_most.min(Sureness::Medium))
        }
    };
    let found = most.filter(|most| change.is_over(most.waited, threshold) && change.is_over(most.part, PART));
    Ok(found.map(|most| {
        let mut evidence = vec![
            Figure::new("waiting for locks", most.waited, "s/s"),
            Figure::new("of all waits for locks", 100.0 * most.part, "%"),
        ];
        evidence.extend(most.rate.map(|rate| Figure::new("waits", rate, "per s")));
        Finding {
            sentence: format!(
                "goroutines of {} wait {} s per second for a mutex, {} % of all waits for locks",
                most.function,
                short(most.waited),
                short((100.0 * most.part).round())
            ),
            evidence,
            advice: format!(
                "`whywait goroutines --pid {} --grouped` shows the stacks that wait for it; hold it for less (no I/O while it is held), or split it",
                change.pid
            ),
            sureness,
            explained: most.waited,
            subject: most.function,
        }
    }))
}

/// By all waits of windows.
fn by_waits(change: &Change<'_>) -> Option<Most> {
    let waited = |facts: &crate::findings::Facts, function: &str| {
        let known = facts.go.as_ref().and_then(|go| go.mutexes.get(function).copied());
        known.unwrap_or_default()
    };
    let mut all = (0, 0);
    let mut most: Option<(u64, u64, &str)> = None;
    for function in change.now().go.as_ref()?.mutexes.keys() {
        let time = change.more(|facts| waited(facts, function).time);
        let count = change.more(|facts| waited(facts, function).count);
        all = (all.0 + time, all.1 + count);
        if most.is_none_or(|(before, ..)| time > before) {
            most = Some((time, count, function));
        }
    }
    let (time, count, function) = most.filter(|(_, count, _)| *count >= COUNT)?;
    Some(Most {
        function: function.to_owned(),
        waited: time as f64 / 1e9 / change.seconds(),
        part: time as f64 / all.0.max(1) as f64,
        rate: Some(count as f64 / change.seconds()),
    })
}

/// By what goroutines did at looks at all of them.
fn by_looks(change: &Change<'_>) -> Result<Option<Most>, String> {
    let go = change.go()?;
    let looks = go.more(|go| go.looks);
    if looks < LOOKS {
        return Err("too few looks at the goroutines".to_owned());
    }
    let sums = super::by_function(&go, &[Doing::Mutex]);
    let all: u64 = sums.values().sum();
    let most = sums.into_iter().max_by_key(|(_, sum)| *sum);
    Ok(most.map(|(function, sum)| Most {
        function,
        waited: sum as f64 / looks as f64,
        part: sum as f64 / all.max(1) as f64,
        rate: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::{Doing, RULE, Sureness};
    use crate::findings::{
        Facts,
        facts::Open,
        go::facts::Waited,
        tests::{S, check, check_not, found, go},
    };

    fn waits(facts: &mut Facts, s: f64, all: &[(&str, f64, f64)]) {
        let waited = |(function, time, rate): &(&str, f64, f64)| {
            let waited = Waited {
                time: (time * s * S) as u64,
                count: (rate * s) as u64,
            };
            ((*function).to_owned(), waited)
        };
        go(facts).mutexes = all.iter().map(waited).collect();
    }

    #[test]
    fn the_mutex_that_most_wait_for_is_found() {
        let sentence = "goroutines of main.serve wait 9 s per second for a mutex, 90 % of all waits for locks";
        check(
            &RULE,
            |facts, s| waits(facts, s, &[("main.serve", 9.0, 100.0), ("main.log", 1.0, 500.0)]),
            sentence,
            9.0,
        );
        // By looks alone.
        let by_looks = |facts: &mut Facts, s: f64| {
            facts.planes = [Open::default(); 4];
            let looks = (s / 10.0) as u64;
            go(facts).origins[2].doing[Doing::Mutex as usize] = 9 * looks;
            go(facts).origins[1].doing[Doing::Mutex as usize] = looks;
        };
        let sentence = sentence.replace("serve", "work");
        check(&RULE, by_looks, &sentence, 9.0);
        assert_eq!(found(&RULE, by_looks).sureness, Sureness::Medium);
    }

    #[test]
    fn short_waits_and_waits_of_many_are_not() {
        check_not(&RULE, |facts, s| waits(facts, s, &[("main.serve", 0.2, 1000.0)]));
        check_not(&RULE, |facts, s| {
            waits(facts, s, &[("a", 1.0, 9.0), ("b", 1.0, 9.0), ("c", 1.0, 9.0)])
        });
        // One long wait.
        check_not(&RULE, |facts, s| waits(facts, s, &[("main.serve", 0.9, 0.01)]));
        check_not(&RULE, |facts, s| {
            facts.planes = [Open::default(); 4];
            go(facts).origins[2].doing[Doing::Mutex as usize] = (s / 10.0) as u64;
        });
    }
}
