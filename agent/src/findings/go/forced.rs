//! GC cycles that the program asks for.

use super::{Cpu, largest};
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.gc.forced",
    says: "The program forces GC cycles: it calls runtime.GC or debug.FreeOSMemory again and again.",
    evidence: "forced cycles per second, of all; the place of the call, where the cycle's stop of the world was seen",
    advice: "remove the call: the caller waits for a whole cycle, sweep included; GOMEMLIMIT keeps memory below a limit, and the scavenger returns it",
    threshold: "3 in the last minute, one in 20 s or more often: a call at a shutdown, a test or a heap profile is none",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

const LEAST: u64 = 3;
/// Per second.
const RATE: f64 = 0.05;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?;
    let go = change.go()?;
    let (forced, all) = (go.more(|go| go.cycles_forced), go.more(|go| go.cycles));
    let rate = forced as f64 / go.seconds;
    if forced < LEAST || !change.is_over(rate, RATE) {
        return Ok(None);
    }
    let part = forced as f64 / all.max(1) as f64;
    let (most, _) = largest(&go.now.forced, &go.first.forced);
    let place = most.map(|(place, _)| place);
    let by = place.map_or_else(String::new, |place| format!(", most by {place}"));
    // A version that keeps no account of CPU time has forced cycles all the same.
    let gc = Cpu::of(&go).ok().flatten().map_or(0.0, |cpu| cpu.gc);
    Ok(Some(Finding {
        sentence: format!("{forced} GC cycles in {} s were forced{by}", short(go.seconds.round())),
        evidence: vec![
            Figure::new("forced", rate, "per s"),
            Figure::new("of all cycles", 100.0 * part, "%"),
        ],
        advice: "remove the call of runtime.GC or debug.FreeOSMemory, whose caller waits for a whole cycle; GOMEMLIMIT keeps memory below a limit, and the scavenger returns it".to_owned(),
        sureness,
        explained: gc * part,
        subject: place.unwrap_or_default().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::tests::{check, check_not, collects, go};

    #[test]
    fn who_forces_cycles_is_found() {
        check(
            &RULE,
            |facts, s| {
                collects(facts, s, 2.0, 0.1);
                let go = go(facts);
                go.cycles_forced = s as u64;
                go.forced = [("main.tidy (main.go:9)".to_owned(), s as u64)].into();
            },
            "60 GC cycles in 60 s were forced, most by main.tidy (main.go:9)",
            0.05,
        );
    }

    #[test]
    fn a_heap_profile_is_no_reason() {
        check_not(&RULE, |facts, s| go(facts).cycles_forced = u64::from(s > 30.0) * 2);
        check_not(&RULE, |facts, _| go(facts).cycles_forced = 100);
    }
}
