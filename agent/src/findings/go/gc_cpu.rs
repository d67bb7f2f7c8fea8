//! The GC's part of the CPU time.

use super::{Cpu, largest};
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.gc.cpu",
    says: "The GC uses much of the CPU time of the process.",
    evidence: "the GC's part of all CPU time; GC cycles per second; bytes allocated per second; whose assists are most, where windows saw them",
    advice: "raise GOGC or GOMEMLIMIT where there is memory; allocate less (an allocation profile shows where); keep fewer pointers",
    threshold: "a fifth of the used CPU and a tenth of a core, over at least 5 cycles: with GOGC=100 the GC aims at a quarter while it runs, which for most services is a few percent of the time. Idle workers of the GC do not count: they use what nobody else wants",
    instead_of: &["go.gc.assists"],
    instead_of_note: None,
    at_once: false,
    judge,
};

const SHARE: f64 = 0.2;
/// Cores.
const CORES: f64 = 0.1;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?;
    let go = change.go()?;
    let Some(cpu) = Cpu::of(&go)? else {
        return Ok(None);
    };
    if !change.is_over(cpu.share, SHARE) || !change.is_over(cpu.gc, CORES) {
        return Ok(None);
    }
    let allocated = go.rate(|go| go.allocated) / f64::from(1 << 20);
    let mut evidence = super::evidence(Some(&cpu));
    evidence.push(Figure::new("allocated", allocated, "MiB/s"));
    let (most, whole) = largest(&go.now.assists, &go.first.assists);
    let who = most.map_or_else(String::new, |(function, time)| {
        let part = 100.0 * time as f64 / whole as f64;
        evidence.push(Figure::new(format!("assists of {function}"), part, "%"));
        format!("; most assists are of {function}")
    });
    Ok(Some(Finding {
        sentence: format!(
            "the GC uses {} % of the CPU that is used, {} cores, for {} MiB allocated per second{who}",
            short((100.0 * cpu.share).round()),
            short(cpu.gc),
            short(allocated.round())
        ),
        evidence,
        advice: "raise GOGC or GOMEMLIMIT where there is memory; allocate less (an allocation profile shows where); keep fewer pointers on the heap".to_owned(),
        sureness,
        explained: cpu.gc,
        subject: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::tests::{check, check_not, collects, go};

    #[test]
    fn a_gc_that_takes_much_is_found() {
        check(
            &RULE,
            |facts, s| {
                collects(facts, s, 5.0, 0.5);
                let assists = [("main.scatter", 3.0), ("main.serve", 1.0)];
                go(facts).assists = assists.map(|(name, time)| (name.to_owned(), (time * s) as u64)).into();
            },
            "the GC uses 33 % of the CPU that is used, 0.50 cores, for 38 MiB allocated per second; most assists are of main.scatter",
            0.5,
        );
    }

    #[test]
    fn a_gc_within_its_aim_is_fine() {
        check_not(&RULE, |facts, s| collects(facts, s, 5.0, 0.15));
        // Too few to say.
        check_not(&RULE, |facts, s| collects(facts, s, 0.05, 0.6));
    }
}
