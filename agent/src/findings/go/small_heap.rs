//! Many GC cycles of a small heap.

use super::Cpu;
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.gc.small_heap",
    says: "The heap is small, much is allocated, and the GC runs many times a second, which a larger heap would save.",
    evidence: "the heap's goal; GC cycles per second; bytes allocated per second; the GC's part of all CPU time",
    advice: "raise GOGC (400 makes a quarter as many cycles or fewer), or set GOGC=off with a GOMEMLIMIT; or allocate less",
    threshold: "a goal below 32 MiB, 10 cycles per second, and 5 % of the used CPU, idle workers of the GC included: a few cycles per second of a small heap cost next to nothing",
    instead_of: &["go.gc.cpu", "go.gc.assists"],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// Bytes.
const GOAL: u64 = 32 << 20;
/// Per second.
const CYCLES: f64 = 10.0;
const SHARE: f64 = 0.05;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?;
    let go = change.go()?;
    let Some(cpu) = Cpu::of(&go)? else {
        return Ok(None);
    };
    let forced = go.more(|go| go.cycles_forced);
    let own = cpu.cycles - forced as f64 / go.seconds;
    let Some(goal) = go.now.heap_goal.filter(|goal| *goal < GOAL) else {
        return Ok(None);
    };
    let by_limit = go.now.goal_by_limit == Some(true);
    if by_limit || !change.is_over(own, CYCLES) || !change.is_over(cpu.share_with_idle, SHARE) {
        return Ok(None);
    }
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let mut evidence = vec![
        Figure::new("heap goal", mib(goal as f64), "MiB"),
        Figure::new("allocated", mib(go.rate(|go| go.allocated)), "MiB/s"),
    ];
    evidence.extend(super::evidence(Some(&cpu)));
    let gogc = go.now.gogc.map_or_else(|| "off".to_owned(), |gogc| gogc.to_string());
    Ok(Some(Finding {
        sentence: format!(
            "the GC runs {} times per second for a heap of {} MiB, and uses {} % of the CPU that is used",
            short(own.round()),
            short(mib(goal as f64).round()),
            short((100.0 * cpu.share_with_idle).round())
        ),
        evidence,
        advice: format!(
            "raise GOGC (it is {gogc}; 400 makes a quarter as many cycles or fewer), or set GOGC=off with a GOMEMLIMIT; or allocate less (an allocation profile shows where)"
        ),
        sureness,
        explained: cpu.with_idle,
        subject: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        Facts,
        tests::{check, check_not, collects, go},
    };

    fn small(facts: &mut Facts, s: f64, cycles: f64, gc: f64) {
        collects(facts, s, cycles, gc);
        go(facts).heap_goal = Some(4 << 20);
    }

    #[test]
    fn many_cycles_of_a_small_heap_are_found() {
        check(
            &RULE,
            |facts, s| small(facts, s, 100.0, 0.25),
            "the GC runs 100 times per second for a heap of 4 MiB, and uses 20 % of the CPU that is used",
            0.25,
        );
    }

    #[test]
    fn a_large_heap_few_cycles_or_cheap_ones_are_fine() {
        check_not(&RULE, |facts, s| {
            small(facts, s, 100.0, 0.25);
            go(facts).heap_goal = Some(64 << 20);
        });
        check_not(&RULE, |facts, s| small(facts, s, 2.0, 0.25));
        check_not(&RULE, |facts, s| small(facts, s, 100.0, 0.01));
        // Somebody asks for them.
        check_not(&RULE, |facts, s| {
            small(facts, s, 100.0, 0.25);
            go(facts).cycles_forced = (95.0 * s) as u64;
        });
    }
}
