//! The GC's CPU limiter.

use super::Cpu;
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.gc.limiter",
    says: "The GC's CPU limiter is on: the heap does not fit below GOMEMLIMIT, the GC took half of the CPU, and the runtime lets memory go over the limit instead.",
    evidence: "whether it is on now; the GC's part of all CPU time; the memory limit; GC cycles per second",
    advice: "raise GOMEMLIMIT, or keep less on the heap",
    threshold: "it was on in the last minute: the runtime turns it on only when the GC uses half of all CPU time",
    instead_of: &["go.gc.memory_limit", "go.gc.small_heap", "go.gc.cpu", "go.gc.assists"],
    instead_of_note: None,
    at_once: false,
    judge,
};

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?;
    let go = change.go()?;
    let Some(limiter) = go.now.limiter else {
        return Err("the GC has a CPU limiter since go1.19".to_owned());
    };
    if !limiter.enabled && (limiter.last_cycle == 0 || limiter.last_cycle <= go.first.cycles) {
        return Ok(None);
    }
    let cpu = Cpu::of(&go)?;
    let mib = go.now.memory_limit.map(|limit| limit as f64 / f64::from(1 << 20));
    let mut evidence = vec![Figure::new("on now", f64::from(u8::from(limiter.enabled)), "")];
    evidence.extend(mib.map(|mib| Figure::new("GOMEMLIMIT", mib, "MiB")));
    evidence.extend(super::evidence(cpu.as_ref()));
    let limit = mib.map_or_else(
        || "its limit".to_owned(),
        |mib| format!("GOMEMLIMIT={} MiB", short(mib)),
    );
    Ok(Some(Finding {
        sentence: format!("the heap does not fit below {limit}: the GC took half of the CPU, and its limiter is on"),
        evidence,
        advice: "raise GOMEMLIMIT, or keep less on the heap (a heap profile shows what)".to_owned(),
        sureness,
        explained: cpu.map_or(0.0, |cpu| cpu.gc),
        subject: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        Facts,
        tests::{check, check_not, go},
    };

    fn limited(facts: &mut Facts, enabled: bool, last: u64) {
        let go = go(facts);
        let limiter = go.limiter.as_mut().unwrap();
        (limiter.enabled, limiter.last_cycle) = (enabled, last);
        go.memory_limit = Some(16 << 20);
    }

    #[test]
    fn a_limiter_that_was_on_is_found() {
        let sentence =
            "the heap does not fit below GOMEMLIMIT=16 MiB: the GC took half of the CPU, and its limiter is on";
        check(&RULE, |facts, _| limited(facts, true, 3), sentence, 0.032);
        check(&RULE, |facts, s| limited(facts, false, s as u64), sentence, 0.032);
    }

    #[test]
    fn one_that_was_on_before_is_not() {
        check_not(&RULE, |facts, s| {
            limited(facts, false, 500);
            go(facts).cycles += 1000 + s as u64;
        });
        check_not(&RULE, |facts, _| limited(facts, false, 0));
    }
}
