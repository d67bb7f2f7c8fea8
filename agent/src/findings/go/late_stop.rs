//! A goroutine for which stops of the world wait.

use crate::{
    findings::{Change, Figure, Finding, Rule, Sureness, Verdict, short},
    signals::go::{
        stops::{LATE, Late},
        stw,
    },
};

pub const RULE: Rule = Rule {
    name: "go.stw.late_goroutine",
    says: "Stops of the world wait for a goroutine that does not stop when it is asked to, at the place that is named; all others stand still meanwhile.",
    evidence: "late stops per second; how long they waited on average; time that all others stood still",
    advice: "unset GODEBUG=asyncpreemptoff; break up a long loop without calls, a large copy or clear of memory, and what runs with preemption off; or look for what else keeps its thread from being interrupted",
    threshold: "two stops in the last minute that waited 5 ms or longer for one place, less the time that its thread had no core, and 1 ms per second: a goroutine that is preempted by a signal stops within some 100 µs",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

const LEAST: u64 = 2;
/// Where it is not known of the thread whether it had a core.
const LEAST_UNSPLIT: u64 = 4;
/// s/s.
const TIME: f64 = 0.001;

fn judge(change: &Change<'_>) -> Verdict {
    let at_most = change.needs(stw::NAME)?;
    let go = change.go()?;
    let more = |(place, now): (&String, &Late)| {
        let before = go.first.late.get(place).copied().unwrap_or_default();
        let late = Late {
            count: now.count.saturating_sub(before.count),
            time: now.time.saturating_sub(before.time),
            unsplit: now.unsplit.saturating_sub(before.unsplit),
        };
        (place.clone(), late)
    };
    let most = go.now.late.iter().map(more).max_by_key(|(_, late)| late.time);
    let Some((place, late)) = most else {
        return Ok(None);
    };
    let time = late.time as f64 / 1e9 / go.seconds;
    let is_split = 2 * late.unsplit <= late.count;
    let least = if is_split { LEAST } else { LEAST_UNSPLIT };
    if late.count < least || !change.is_over(time, TIME) {
        return Ok(None);
    }
    let mean = late.time as f64 / late.count as f64 / 1e6;
    Ok(Some(Finding {
        sentence: format!(
            "stops of the world wait {} ms for the goroutine at {place}, {} times in {} s",
            short(mean.round()),
            late.count,
            short(go.seconds.round())
        ),
        evidence: vec![
            Figure::new("late stops", late.count as f64 / go.seconds, "per s"),
            Figure::new("mean wait", mean, "ms"),
            Figure::new("all others stand still", time, "s/s"),
        ],
        advice: format!(
            "look at {place}: a long loop without calls, or a large copy; GODEBUG=asyncpreemptoff=1 makes every loop without calls one"
        ),
        sureness: at_most.min(if is_split { Sureness::High } else { Sureness::Medium }),
        explained: time,
        subject: place,
    }))
}

/// The threshold that the docs name.
const _: () = assert!(LATE == 5_000_000);

#[cfg(test)]
mod tests {
    use super::{Late, RULE};
    use crate::findings::{
        Facts,
        tests::{check, check_not, go},
    };

    fn late(facts: &mut Facts, count: u64, ms: u64, unsplit: u64) {
        let late = Late {
            count,
            time: count * ms * 1_000_000,
            unsplit,
        };
        go(facts).late.insert("main.tight (main.go:7)".to_owned(), late);
    }

    #[test]
    fn who_is_late_is_found() {
        check(
            &RULE,
            |facts, s| late(facts, s as u64 / 10, 40, 0),
            "stops of the world wait 40 ms for the goroutine at main.tight (main.go:7), 6 times in 60 s",
            0.004,
        );
    }

    #[test]
    fn one_that_was_late_once_is_not() {
        check_not(&RULE, |facts, s| late(facts, u64::from(s > 20.0), 400, 0));
        // All before.
        check_not(&RULE, |facts, _| late(facts, 50, 40, 0));
        // Perhaps its thread had no core.
        check_not(&RULE, |facts, s| late(facts, s as u64 / 20, 40, s as u64 / 20));
    }
}
