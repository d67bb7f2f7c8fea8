//! Goroutines that wait for a P while the process uses all cores that it may.

use super::too_few_processors::{BUSY, waited};
use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, process::throttled, short},
    signals::go::runtime,
};

pub const RULE: Rule = Rule {
    name: "go.cpu.saturated",
    says: "Goroutines wait for a P, and the process uses all the cores that it may: the load is more than they can do.",
    evidence: "time that goroutines were runnable while no P was free; GOMAXPROCS; cores that it may use; CPU use of the process",
    advice: "give it more cores, spread its load, or make it use less CPU (a CPU profile shows where it goes)",
    threshold: "one goroutine that waits at any time, and 80 % of GOMAXPROCS in use: below, the queue for a P is short. A quota that throttles is told instead",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// s/s.
const WAITED: f64 = 1.0;

fn judge(change: &Change<'_>) -> Verdict {
    change.needs(runtime::NAME)?;
    let go = change.go()?;
    let (waited, sureness) = waited(change)?;
    let Some(usable) = change.now().cores() else {
        return Err("the cores that it may use are not known".to_owned());
    };
    let procs = go.now.gomaxprocs as f64;
    let used = change.rate(|facts| facts.cpu_time.unwrap_or(0)) / 1e9;
    let is_full = procs + 1.0 > usable && change.is_over(used, BUSY * procs.min(usable));
    if !is_full || !change.is_over(waited, WAITED) || throttled::most(change).is_some() {
        return Ok(None);
    }
    Ok(Some(Finding {
        sentence: format!(
            "goroutines wait {} s per second for a P: the process uses {} of {} cores, and that is all it may",
            short(waited),
            short(used),
            short(usable)
        ),
        evidence: vec![
            Figure::new("runnable, no P free", waited, "s/s"),
            Figure::new("GOMAXPROCS", procs, ""),
            Figure::new("usable", usable, "cores"),
            Figure::new("CPU of the process", used, "cores"),
        ],
        advice: "give it more cores, spread its load, or make it use less CPU: a CPU profile shows where it goes"
            .to_owned(),
        sureness,
        explained: waited,
        subject: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        Facts,
        tests::{S, cgroup, check, check_not, go},
    };

    fn load(facts: &mut Facts, s: f64, used: f64, waited: f64) {
        go(facts).no_processor = (waited * s * S) as u64;
        facts.cpu_time = Some((used * s * S) as u64);
    }

    #[test]
    fn more_load_than_cores_is_found() {
        check(
            &RULE,
            |facts, s| load(facts, s, 3.9, 12.0),
            "goroutines wait 12 s per second for a P: the process uses 3.90 of 4 cores, and that is all it may",
            12.0,
        );
    }

    #[test]
    fn a_busy_service_without_a_queue_is_fine() {
        check_not(&RULE, |facts, s| load(facts, s, 3.9, 0.5));
        check_not(&RULE, |facts, s| load(facts, s, 2.0, 5.0));
        check_not(&RULE, |facts, s| {
            load(facts, s, 3.9, 5.0);
            go(facts).gomaxprocs = 2;
        });
        check_not(&RULE, |facts, s| {
            load(facts, s, 2.0, 5.0);
            facts.quotas = vec![cgroup(2.0, s, 0.9, 0.5)];
        });
    }
}
