//! What `whywait profile` prints: what was seen, what is missing, and the largest shares.

use super::{Seen, cpu::OnCpu};
use crate::{cli::ProfileArgs, commands::goroutines::state_of, realtime, say};

/// Part of the looks that may be late without a word.
const LATE: f64 = 0.02;
/// Rows of the table.
const ROWS: usize = 20;

/// Prints it.
pub(super) fn print(seen: &mut Seen, args: &ProfileArgs) {
    let seconds = seen.elapsed.as_secs_f64();
    say!(
        "{} looks in {seconds:.1} s, {:.1} a second, at {:.0} goroutines each of {:.0} ({} entries in the runtime's table)",
        seen.looks,
        seen.looks as f64 / seconds,
        seen.goroutines as f64 / seen.looks as f64,
        seen.sums.mean(),
        seen.entries
    );
    let limit = args
        .limit_cpu
        .0
        .map_or_else(|| "off".to_owned(), |limit| format!("{} %", 100.0 * limit));
    say!(
        "own CPU time: {:.2} % of a core; limit: {limit}",
        100.0 * seen.cpu.as_secs_f64() / seconds
    );
    if seen.late as f64 > LATE * seen.looks as f64 {
        let reason = match realtime::refused() {
            Some(error) => format!("the kernel refused it ({error}): run as root, or with the capability SYS_NICE"),
            None => format!(
                "they took longer than the {:?} for which they may have it",
                realtime::MOST
            ),
        };
        say!(
            "{:.0} % of the looks were not made at real-time priority: {reason}. On a busy machine they come late, and show up to a third \
             too little of the time that goroutines run",
            100.0 * seen.late as f64 / seen.looks as f64
        );
    }
    if let Some(error) = &seen.error {
        say!("ended early: {error}");
    }
    match &seen.on_cpu {
        Ok(None) => {}
        Ok(Some(on_cpu)) => say_on_cpu(on_cpu),
        Err(refused) => say!("no samples of code on CPU, and so no stacks of goroutines that run: {refused}"),
    }
    let without = seen.sums.without_stack();
    if without > 0.0 {
        let known = match &seen.on_cpu {
            Ok(Some(_)) => {
                "samples of code on CPU, and the function that they were started with, are all that is known of it"
            }
            _ => "only the function that they were started with is known of it",
        };
        say!(
            "{:.2} % of the wall time is of goroutines that ran or moved while they were read: {known}",
            100.0 * without
        );
    }
    if seen.sums.not_kept() > 0.0 {
        say!(
            "{:.2} % of the wall time is of stacks beyond those that are kept apart",
            100.0 * seen.sums.not_kept()
        );
    }
    say!(
        "{:>8} {:>8} {:>10}  {:<24} started with",
        "share",
        "± error",
        "goroutines",
        "state"
    );
    let shares = seen.sums.shares();
    for share in shares.iter().take(ROWS) {
        let category = &share.category;
        let function = seen.places.started_with(category.startpc);
        say!(
            "{:>6.2} % {:>6.2} % {:>10.1}  {:<24} {}",
            100.0 * share.share,
            100.0 * share.error,
            share.share * seen.sums.mean(),
            state_of(category.state, category.reason, &seen.reasons),
            function.as_deref().unwrap_or("unknown")
        );
    }
    if shares.len() > ROWS {
        let rest: f64 = shares[ROWS..].iter().map(|share| share.share).sum();
        say!(
            "{:>6.2} % {:>8} {:>10}  {} more",
            100.0 * rest,
            "",
            "",
            shares.len() - ROWS
        );
    }
}

fn say_on_cpu(on_cpu: &OnCpu) {
    let (samples, time, account) = on_cpu.times();
    let account = account.map_or_else(
        || "it ended before its account was read".to_owned(),
        |account| format!("by the kernel's account {:.2} s", account.as_secs_f64()),
    );
    say!("on CPU: {samples} samples, which are {:.2} s; {account}", time / 1e9);
    if on_cpu.lost > 0 {
        say!(
            "{} samples, of this process or of others, were lost: they came faster than they were read",
            on_cpu.lost
        );
    }
    if on_cpu.not_kept() > 0.0 {
        say!(
            "{:.2} % of the samples are of stacks beyond those that are kept apart",
            100.0 * on_cpu.not_kept()
        );
    }
}
