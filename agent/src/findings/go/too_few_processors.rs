//! Goroutines that wait for a P while cores are idle.

use crate::{
    findings::{Change, Figure, Finding, Rule, Sureness, Verdict, short},
    signals::go::{goroutines, looks::Doing, runtime, sched},
};
use agent_common::hits::Plane;

pub const RULE: Rule = Rule {
    name: "go.gomaxprocs.too_low",
    says: "Goroutines wait for a P, since GOMAXPROCS is below the cores that the process may use, while cores are idle.",
    evidence: "time that goroutines were runnable while no P was free; GOMAXPROCS; cores that it may use; CPU use of the process; idle cores of the host",
    advice: "raise GOMAXPROCS, or unset it",
    threshold: "half a goroutine that waits at any time, 80 % of GOMAXPROCS in use, and half a core idle: below, Ps are free most of the time",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// s/s.
const WAITED: f64 = 0.5;
/// Of GOMAXPROCS.
pub(super) const BUSY: f64 = 0.8;
/// Cores.
const IDLE: f64 = 0.5;
/// Walks over all goroutines that count instead, where no window was open.
const LOOKS: u64 = 3;

/// Time that goroutines waited for a P, s/s, and how sure that is: by the probes of windows, or by how many were runnable at a few looks.
pub(super) fn waited(change: &Change<'_>) -> Result<(f64, Sureness), String> {
    let go = change.go()?;
    match change.seen(sched::NAME, Plane::Probes) {
        Ok(sureness) => Ok((change.rate(no_processor) / 1e9, sureness)),
        Err(_) => {
            let at_most = change.needs(goroutines::NAME)?;
            let looks = go.more(|go| go.looks);
            if looks < LOOKS {
                return Err("too few looks at the goroutines".to_owned());
            }
            let runnable = go.more(|go| go.doing(Doing::Runnable)) as f64 / looks as f64;
            Ok((runnable, at_most.min(Sureness::Medium)))
        }
    }
}

fn no_processor(facts: &crate::findings::Facts) -> u64 {
    facts.go.as_ref().map_or(0, |go| go.no_processor)
}

fn judge(change: &Change<'_>) -> Verdict {
    change.needs(runtime::NAME)?;
    let go = change.go()?;
    let (waited, sureness) = waited(change)?;
    let (Some(usable), Some(host), Some(before)) = (change.now().cores(), change.now().host, change.first().host)
    else {
        return Err("the cores that it may use are not known".to_owned());
    };
    let procs = go.now.gomaxprocs as f64;
    let used = change.rate(|facts| facts.cpu_time.unwrap_or(0)) / 1e9;
    let idle = (host.idle - before.idle) / change.seconds();
    let is_low = procs + 1.0 <= usable && change.is_over(used, BUSY * procs) && idle >= IDLE;
    if !is_low || !change.is_over(waited, WAITED) {
        return Ok(None);
    }
    Ok(Some(Finding {
        sentence: format!(
            "goroutines wait {} s per second for a P: GOMAXPROCS is {}, while {} cores are idle",
            short(waited),
            go.now.gomaxprocs,
            short(idle)
        ),
        evidence: vec![
            Figure::new("runnable, no P free", waited, "s/s"),
            Figure::new("GOMAXPROCS", procs, ""),
            Figure::new("usable", usable, "cores"),
            Figure::new("CPU of the process", used, "cores"),
            Figure::new("idle", idle, "cores"),
        ],
        advice: format!("raise GOMAXPROCS towards {}, or unset it", short(usable.floor())),
        sureness,
        explained: waited,
        subject: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::{Doing, RULE};
    use crate::findings::{
        Facts,
        facts::{Host, Open},
        tests::{S, check, check_not, go},
    };

    fn busy(facts: &mut Facts, s: f64, procs: u64, waited: f64) {
        go(facts).gomaxprocs = procs;
        go(facts).no_processor = (waited * s * S) as u64;
        facts.cpu_time = Some((procs as f64 * s * S) as u64);
    }

    #[test]
    fn too_few_processors_are_found() {
        let sentence = "goroutines wait 3 s per second for a P: GOMAXPROCS is 1, while 2.50 cores are idle";
        check(&RULE, |facts, s| busy(facts, s, 1, 3.0), sentence, 3.0);
        // By looks alone.
        check(
            &RULE,
            |facts, s| {
                busy(facts, s, 1, 0.0);
                facts.planes = [Open::default(); 4];
                go(facts).origins[1].doing[Doing::Runnable as usize] = 3 * (s / 10.0) as u64;
            },
            sentence,
            3.0,
        );
    }

    #[test]
    fn processors_that_are_free_or_cores_that_are_not_are_no_reason() {
        check_not(&RULE, |facts, s| busy(facts, s, 1, 0.2));
        check_not(&RULE, |facts, s| busy(facts, s, 4, 3.0));
        check_not(&RULE, |facts, s| {
            busy(facts, s, 2, 3.0);
            facts.cpu_time = Some((s * S) as u64);
        });
        check_not(&RULE, |facts, s| {
            busy(facts, s, 2, 3.0);
            facts.host = Some(Host {
                cores: 4,
                busy: 4.0 * s,
                idle: 0.0,
            });
        });
    }
}
