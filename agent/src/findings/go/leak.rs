//! Goroutines that leak at a line.

use super::facts::Origin;
use crate::{
    findings::{Change, Facts, Figure, Finding, Rule, Sureness, Verdict, short},
    signals::go::{goroutines, looks::Doing},
};

pub const RULE: Rule = Rule {
    name: "go.goroutine.leak",
    says: "Goroutines of one go statement become more and more, and do not end.",
    evidence: "how many more in the last minute; how many there are; what most of them do",
    advice: "look at what they wait for at the line of the go statement: `whywait goroutines --pid N --grouped`; give it a context, a deadline, or somebody who always receives",
    threshold: "20 more of one origin, growing in each part of at least 10 s (50 s where most wait for the network, as connections of a growing load do), never fewer than at the reading before: a service at work keeps a number, and its goroutines end",
    instead_of: &[],
    instead_of_note: Some(goroutines::GROWING),
    at_once: true,
    judge,
};

const MORE: u64 = 20;
/// s.
const LEAST: f64 = 9.0;
const LEAST_OF_IO: f64 = 50.0;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(goroutines::NAME)?;
    let go = change.go()?;
    if change.seconds() < LEAST || go.more(|go| go.looks) < 3 {
        return Err(format!("it takes {LEAST} s of looks at the goroutines"));
    }
    let growing = go
        .now
        .origins
        .iter()
        .filter_map(|origin| Some((growth(change, origin)?, origin)));
    let Some((more, origin)) = growing.max_by_key(|(more, _)| *more) else {
        return Ok(None);
    };
    let rate = more as f64 / change.seconds();
    let at = if origin.place.is_empty() {
        String::new()
    } else {
        format!(", made by {}", origin.place)
    };
    Ok(Some(Finding {
        sentence: format!(
            "goroutines of {} become more: +{more} in {} s, {} alive{at}",
            origin.function,
            short(change.seconds().round()),
            origin.alive
        ),
        evidence: vec![
            Figure::new("more", rate, "per s"),
            Figure::new(format!("alive ({})", origin.most), origin.alive as f64, ""),
        ],
        advice: format!(
            "see what they wait for: `whywait goroutines --pid {} --grouped`; give it a context, a deadline, or somebody who always receives",
            change.pid
        ),
        sureness: sureness.min(Sureness::Medium),
        // Nobody waits for them: they cost memory, and time of the GC.
        explained: 0.0,
        subject: format!("{} {}", origin.function, origin.place),
    }))
}

/// How many more there are, if they only become more.
fn growth(change: &Change<'_>, origin: &Origin) -> Option<u64> {
    let is_io = origin.most == "IO wait";
    if is_io && change.seconds() < LEAST_OF_IO {
        return None;
    }
    // Readings without a walk between them have the same.
    let mut looks = 0;
    let mut counts = Vec::new();
    for go in change.samples.iter().filter_map(|facts: &Facts| facts.go.as_ref()) {
        if go.looks == looks {
            continue;
        }
        looks = go.looks;
        let same = go.origins.iter().find(|other| other.is_same(origin));
        counts.push(same.map_or(0, |origin| origin.alive));
    }
    let (last, parts) = (counts.len().saturating_sub(1), if counts.len() > 3 { 3 } else { 2 });
    let at = |part: usize| counts[last * part / parts];
    let grows = last > 1 && (0..parts).all(|part| at(part) < at(part + 1));
    let more = counts.last()?.saturating_sub(*counts.first()?);
    let blocked = origin.doing[Doing::Other as usize] + origin.doing[Doing::Mutex as usize] > 0 || is_io;
    (grows && blocked && counts.is_sorted() && change.is_over(more as f64, MORE as f64)).then_some(more)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        Facts,
        tests::{check, check_not, go},
    };

    fn alive(facts: &mut Facts, count: u64, most: &str) {
        let origin = &mut go(facts).origins[2];
        (origin.alive, origin.most) = (count, most.to_owned());
        origin.place = "main.serve at main.go:12".to_owned();
    }

    #[test]
    fn a_line_that_leaks_is_found() {
        check(
            &RULE,
            |facts, s| alive(facts, 8 + s as u64, "chan receive"),
            "goroutines of main.work become more: +60 in 60 s, 68 alive, made by main.serve at main.go:12",
            0.0,
        );
    }

    #[test]
    fn a_service_at_work_is_not() {
        // As many come as go.
        check_not(&RULE, |facts, s| {
            alive(facts, 100 + (s as u64 * 7) % 40, "chan receive")
        });
        // A pool that is filled, and then kept.
        check_not(&RULE, |facts, s| {
            alive(facts, (8 + 5 * s as u64).min(108), "chan receive")
        });
        check_not(&RULE, |facts, s| alive(facts, 8 + s as u64 / 5, "chan receive"));
    }
}
