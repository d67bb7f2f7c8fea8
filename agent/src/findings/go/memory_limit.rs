//! GOMEMLIMIT as what makes the GC run.

use super::Cpu;
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.gc.memory_limit",
    says: "GOMEMLIMIT, not GOGC, sets the heap's goal, and the GC runs often for it: memory is close to the limit.",
    evidence: "the limit and the goal; GC cycles per second; the GC's part of all CPU time",
    advice: "raise GOMEMLIMIT (with the memory of the container), or keep less on the heap",
    threshold: "the limit sets the goal at each reading, one cycle per second and a tenth of the used CPU, idle workers of the GC included: with GOGC=off the limit always sets it, and is fine while cycles are rare",
    instead_of: &["go.gc.small_heap", "go.gc.cpu", "go.gc.assists"],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// Per second.
const CYCLES: f64 = 1.0;
const SHARE: f64 = 0.1;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?;
    let go = change.go()?;
    let known = change.samples.iter().filter_map(|facts| facts.go.as_ref());
    if known.clone().all(|go| go.goal_by_limit.is_none()) {
        return Err("GOMEMLIMIT exists since go1.19".to_owned());
    }
    let by_limit = known.clone().all(|go| go.goal_by_limit == Some(true));
    let Some(cpu) = Cpu::of(&go)? else {
        return Ok(None);
    };
    if !by_limit || !change.is_over(cpu.cycles, CYCLES) || !change.is_over(cpu.share_with_idle, SHARE) {
        return Ok(None);
    }
    let mib = |bytes: Option<u64>| bytes.unwrap_or(0) as f64 / f64::from(1 << 20);
    let (limit, goal) = (mib(go.now.memory_limit), mib(go.now.heap_goal));
    let mut evidence = vec![
        Figure::new("GOMEMLIMIT", limit, "MiB"),
        Figure::new("heap goal", goal, "MiB"),
    ];
    evidence.extend(super::evidence(Some(&cpu)));
    Ok(Some(Finding {
        sentence: format!(
            "GOMEMLIMIT={} MiB makes the GC run {} times per second, for {} % of the CPU that is used",
            short(limit),
            short(cpu.cycles),
            short((100.0 * cpu.share_with_idle).round())
        ),
        evidence,
        advice:
            "raise GOMEMLIMIT (with the memory of the container), or keep less on the heap (a heap profile shows what)"
                .to_owned(),
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

    fn limited(facts: &mut Facts, s: f64, cycles: f64, gc: f64) {
        collects(facts, s, cycles, gc);
        let go = go(facts);
        (go.goal_by_limit, go.memory_limit) = (Some(true), Some(100 << 20));
    }

    #[test]
    fn a_limit_that_is_close_is_found() {
        check(
            &RULE,
            |facts, s| limited(facts, s, 20.0, 1.0),
            "GOMEMLIMIT=100 MiB makes the GC run 20 times per second, for 50 % of the CPU that is used",
            1.0,
        );
    }

    #[test]
    fn a_limit_with_room_is_fine() {
        check_not(&RULE, |facts, s| limited(facts, s, 0.5, 1.0));
        check_not(&RULE, |facts, s| limited(facts, s, 20.0, 0.05));
        check_not(&RULE, |facts, s| {
            limited(facts, s, 20.0, 1.0);
            go(facts).goal_by_limit = Some(s < 40.0);
        });
    }
}
