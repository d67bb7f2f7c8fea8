//! Mark assists: goroutines that pay for the GC because they allocate.

use super::{Cpu, largest};
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.gc.assists",
    says: "Goroutines that allocate are made to help the GC (mark assists), which delays what they do.",
    evidence: "CPU time of assists; their part of all used CPU time; the start function that paid most, where windows saw them",
    advice: "allocate less in the goroutines that are named; a larger heap (GOGC, GOMEMLIMIT) makes cycles, and so assists, fewer",
    threshold: "5 % of the used CPU and 0.05 s per second, over at least 5 cycles: assists are meant to be rare, as dedicated workers do the marking",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

const SHARE: f64 = 0.05;
/// s/s.
const TIME: f64 = 0.05;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?;
    let go = change.go()?;
    let Some(cpu) = Cpu::of(&go)? else {
        return Ok(None);
    };
    let share = cpu.share * cpu.assists / cpu.gc.max(f64::MIN_POSITIVE);
    if !change.is_over(share, SHARE) || !change.is_over(cpu.assists, TIME) {
        return Ok(None);
    }
    let mut evidence = vec![
        Figure::new("assists", cpu.assists, "s/s"),
        Figure::new("of used CPU", 100.0 * share, "%"),
        Figure::new("GC cycles", cpu.cycles, "per s"),
    ];
    let (most, whole) = largest(&go.now.assists, &go.first.assists);
    let who = most.map(|(function, time)| {
        let part = 100.0 * time as f64 / whole as f64;
        evidence.push(Figure::new(format!("paid by {function}"), part, "%"));
        function
    });
    let by = who.map_or_else(String::new, |who| format!(", most by goroutines of {who}"));
    Ok(Some(Finding {
        sentence: format!(
            "goroutines that allocate help the GC {} s per second, {} % of the CPU that is used{by}",
            short(cpu.assists),
            short((100.0 * share).round())
        ),
        evidence,
        advice: "allocate less there; a larger heap (GOGC, GOMEMLIMIT) makes cycles, and so assists, fewer".to_owned(),
        sureness,
        explained: cpu.assists,
        subject: who.unwrap_or_default().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        Facts,
        tests::{S, check, check_not, collects, go},
    };

    fn assists(facts: &mut Facts, s: f64, time: f64) {
        collects(facts, s, 5.0, 0.01);
        let go = go(facts);
        let cpu = go.cpu.as_mut().unwrap();
        (cpu[0], cpu[6]) = ((time * s * S) as u64, cpu[6] - (time * s * S) as u64);
        go.assists = [("main.scatter".to_owned(), (0.1 * time * s * S) as u64)].into();
    }

    #[test]
    fn who_pays_for_the_gc_is_found() {
        check(
            &RULE,
            |facts, s| assists(facts, s, 0.2),
            "goroutines that allocate help the GC 0.20 s per second, 17 % of the CPU that is used, most by goroutines of main.scatter",
            0.2,
        );
    }

    #[test]
    fn a_few_assists_are_normal() {
        check_not(&RULE, |facts, s| assists(facts, s, 0.04));
    }
}
