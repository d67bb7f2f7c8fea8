//! Threads that become more because goroutines block them.

use std::collections::BTreeMap;

use super::by_function;
use crate::{
    findings::{Change, Figure, Finding, Rule, Sureness, Verdict, go::facts::GoFacts, short},
    signals::go::{goroutines, looks::Doing, runtime},
};

pub const RULE: Rule = Rule {
    name: "go.threads.growing",
    says: "The process makes more and more threads, since goroutines block theirs in system calls or in calls into C.",
    evidence: "threads now and at the begin; goroutines in system calls and in C; the start function of most of them; calls into C per second",
    advice: "limit how many of the calls are made at once (a semaphore, a pool); use what goes through the network poller; each thread costs a stack, and 10,000 end the program",
    threshold: "10 more in the last minute, growing in both halves of it, at least 20 beyond GOMAXPROCS, and half of what is not idle in such calls: a service under load reaches a number and keeps it",
    instead_of: &[],
    instead_of_note: None,
    at_once: true,
    judge,
};

/// More threads.
const MORE: u64 = 10;
/// Beyond GOMAXPROCS.
const BEYOND: u64 = 20;
/// Readings that must stand between the first and the last, s.
const LEAST: f64 = 8.0;

fn alive(go: &GoFacts) -> u64 {
    go.threads
        .map_or(0, |threads| threads.created.saturating_sub(threads.ended))
}

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.needs(runtime::NAME)?.min(change.needs(goroutines::NAME)?);
    let go = change.go()?;
    if go.seconds < LEAST {
        return Err(format!("it takes {LEAST} s of readings"));
    }
    let Some(threads) = go.now.threads else {
        return Err("this version keeps no count of threads".to_owned());
    };
    let known: Vec<&GoFacts> = change.samples.iter().filter_map(|facts| facts.go.as_ref()).collect();
    let (first, middle, now) = (alive(go.first), alive(known[known.len() / 2]), alive(go.now));
    let grows = first < middle && middle < now;
    let is_over = change.is_over(now.saturating_sub(first) as f64, MORE as f64);
    if !grows || !is_over || now < go.now.gomaxprocs + BEYOND {
        return Ok(None);
    }
    let looks = go.more(|go| go.looks).max(1) as f64;
    let in_calls = |doing: Doing| by_function(&go, &[doing]).values().sum::<u64>() as f64 / looks;
    let (syscalls, in_c) = (in_calls(Doing::Syscall), in_calls(Doing::Cgo));
    // The means of the last minute, in which they became more.
    let busy = (first + now) as f64 / 2.0 - threads.idle as f64;
    if 2.0 * (syscalls + in_c) < busy {
        return Ok(None);
    }
    let of: BTreeMap<String, u64> = by_function(&go, &[Doing::Syscall, Doing::Cgo]);
    let who = of.into_iter().max_by_key(|(_, sum)| *sum).filter(|(_, sum)| *sum > 0);
    let who = who.map_or_else(|| "unknown".to_owned(), |(function, _)| function);
    let what = if in_c > syscalls {
        "calls into C"
    } else {
        "system calls"
    };
    let mut evidence = vec![
        Figure::new("threads", now as f64, ""),
        Figure::new("before", first as f64, ""),
        Figure::new("goroutines in system calls", syscalls, ""),
        Figure::new("goroutines in C", in_c, ""),
    ];
    if go.now.c_calls.is_some() {
        let calls = go.rate(|go| go.c_calls.unwrap_or(0));
        evidence.push(Figure::new("calls into C", calls, "per s"));
    }
    Ok(Some(Finding {
        sentence: format!(
            "threads grew from {first} to {now} in {} s: goroutines of {who} block them in {what}",
            short(go.seconds.round())
        ),
        evidence,
        advice: format!(
            "limit how many of these calls are made at once (a semaphore, a pool); `whywait goroutines --pid {} --grouped` shows where they are made",
            change.pid
        ),
        sureness: sureness.min(Sureness::Medium),
        explained: syscalls + in_c,
        subject: who,
    }))
}

#[cfg(test)]
mod tests {
    use super::{Doing, RULE};
    use crate::findings::{
        Facts,
        tests::{check, check_not, go},
    };

    fn grow(facts: &mut Facts, threads: u64, blocked: u64, what: Doing) {
        let go = go(facts);
        go.threads.as_mut().unwrap().created = threads;
        go.origins[2].doing[what as usize] = blocked * go.looks;
    }

    #[test]
    fn threads_that_calls_block_are_found() {
        check(
            &RULE,
            |facts, s| grow(facts, 30 + s as u64, 50, Doing::Syscall),
            "threads grew from 30 to 90 in 60 s: goroutines of main.work block them in system calls",
            50.0,
        );
        check(
            &RULE,
            |facts, s| grow(facts, 30 + s as u64, 50, Doing::Cgo),
            "threads grew from 30 to 90 in 60 s: goroutines of main.work block them in calls into C",
            50.0,
        );
    }

    #[test]
    fn a_number_that_is_kept_is_fine() {
        check_not(&RULE, |facts, _| grow(facts, 200, 150, Doing::Syscall));
        // It was reached at once.
        check_not(&RULE, |facts, s| {
            grow(facts, if s > 0.0 { 90 } else { 30 }, 50, Doing::Syscall)
        });
        check_not(&RULE, |facts, s| grow(facts, 12 + s as u64 / 10, 10, Doing::Syscall));
        // Of another reason.
        check_not(&RULE, |facts, s| grow(facts, 30 + s as u64, 2, Doing::Syscall));
    }
}
