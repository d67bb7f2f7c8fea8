//! Threads that wait for a core.

use super::throttled;
use crate::findings::{Change, Figure, Finding, Rule, Sureness, Verdict, short};

pub const RULE: Rule = Rule {
    name: "cpu.no_core",
    says: "Threads of the process wait for a core, since others use them (a noisy neighbour), or since the host is too small.",
    evidence: "time that threads waited on run queues (/proc/PID/task/*/schedstat); CPU use of the process and of others; cores",
    advice: "move the service or its neighbours (`top` shows them), or give it more cores",
    threshold: "0.1 s per second and a quarter of the process' own CPU time: below, requests are delayed by a small part of what they take anyway. Half of the host's cores, or of those that it may use, are busy: where they are idle, the wait is for one of them to wake up. Not while a quota throttles: the kernel counts that time too",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// s/s.
const TIME: f64 = 0.1;
/// Of the process' own CPU time.
const SHARE: f64 = 0.25;
/// Of the cores, what must be busy.
const BUSY: f64 = 0.5;
/// Cores that others must use to be the cause.
const OTHERS: f64 = 0.2;

fn judge(change: &Change<'_>) -> Verdict {
    let (first, now) = (change.first(), change.now());
    let (Some(before), Some(after)) = (first.run_queue, now.run_queue) else {
        return Err("the waits of its threads cannot be read".to_owned());
    };
    let (Some(host_before), Some(host), Some(_)) = (first.host, now.host, now.cpu_time) else {
        return Err("the host's CPU time cannot be read".to_owned());
    };
    let waited = after.saturating_sub(before) as f64 / 1e9 / change.seconds();
    let own = change.rate(|facts| facts.cpu_time.unwrap_or(0)) / 1e9;
    if !change.is_over(waited, TIME) || !change.is_over(waited, SHARE * own) || throttled::most(change).is_some() {
        return Ok(None);
    }
    let others = ((host.busy - host_before.busy) / change.seconds() - own).max(0.0);
    let cores = now.cores().unwrap_or(host.cores as f64).min(host.cores as f64);
    let is_busy = own + others >= BUSY * host.cores as f64 || own >= BUSY * cores;
    if !is_busy {
        return Ok(None);
    }
    let is_crowded = others >= OTHERS.max(own / 2.0);
    let (why, advice) = if is_crowded {
        (
            format!(
                "other processes use {} of the host's {} cores",
                short(others),
                host.cores
            ),
            "see with `top` which they are, and move them or the service; or give the service a larger share (cpu.weight, CPU requests)",
        )
    } else {
        (
            format!("it may use {} cores, and needs more", short(cores)),
            "give it more cores (its affinity, a larger host), or spread its load",
        )
    };
    Ok(Some(Finding {
        sentence: format!("threads wait for a core {} s per second: {why}", short(waited)),
        evidence: vec![
            Figure::new("threads in run queues", waited, "s/s"),
            Figure::new("CPU of the process", own, "cores"),
            Figure::new("CPU of others", others, "cores"),
            Figure::new("usable", cores, "cores"),
        ],
        advice: advice.to_owned(),
        sureness: Sureness::High,
        explained: waited,
        subject: if is_crowded { "neighbours" } else { "host" }.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        facts::{Facts, Host},
        tests::{S, cgroup, check, check_not},
    };

    fn host(facts: &mut Facts, s: f64, others: f64, own: f64, waited: f64) {
        facts.cpu_time = Some((own * s * S) as u64);
        facts.run_queue = Some((waited * s * S) as u64);
        facts.host = Some(Host {
            cores: 4,
            busy: (others + own) * s,
            idle: 0.0,
        });
    }

    #[test]
    fn neighbours_are_told_from_a_host_that_is_too_small() {
        check(
            &RULE,
            |facts, s| host(facts, s, 3.0, 1.0, 0.5),
            "threads wait for a core 0.50 s per second: other processes use 3 of the host's 4 cores",
            0.5,
        );
        check(
            &RULE,
            |facts, s| host(facts, s, 0.0, 4.0, 2.0),
            "threads wait for a core 2 s per second: it may use 4 cores, and needs more",
            2.0,
        );
    }

    #[test]
    fn a_busy_host_that_delays_little_is_fine() {
        check_not(&RULE, |facts, s| host(facts, s, 2.0, 1.0, 0.09));
        check_not(&RULE, |facts, s| host(facts, s, 0.0, 3.5, 0.5));
        // etcd at 200 requests a second: it wakes threads, and idle cores of a virtual machine take their time.
        check_not(&RULE, |facts, s| host(facts, s, 0.22, 0.18, 0.29));
        // A quota's time is the quota's.
        check_not(&RULE, |facts, s| {
            host(facts, s, 0.0, 1.0, 1.0);
            facts.quotas = vec![cgroup(1.0, s, 0.9, 0.5)];
        });
    }
}
