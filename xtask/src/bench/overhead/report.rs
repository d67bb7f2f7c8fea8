//! The results as Markdown.

use std::fmt::Write as _;

use super::{
    super::{
        service::{self, Window},
        stats::{Estimate, estimate, median},
    },
    cases::{SETS, Set, Watcher},
    measure::{CAPACITY, FEWEST, Goal, Row, WARM},
};

const COST: &str = "| load | pairs | requests/s | CPU/request, µs | requests/s ratio | bar | CPU/request ratio | bar | by the account | within | agent's own CPU |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|\n";
const LATENCY: &str = "| load | p50, µs | p50 ratio | p99 ratio | bar | p99.9 ratio |\n|---|---|---|---|---|---|\n";

const RATE_BAR: Bar = Bar::Least(0.99);
const CPU_BAR: Bar = Bar::Most(1.01);
const P99_BAR: Bar = Bar::Most(1.02);

pub(super) fn text(rows: &[Row], goal: &Goal, (seconds, settle): (u32, u32), name: &str) -> String {
    let mut text = head(goal, (seconds, settle), name);
    for set in &SETS {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.set.name == set.name).collect();
        if !rows.is_empty() {
            text += &section(set, &rows, goal);
        }
    }
    text
}

fn head(goal: &Goal, (seconds, settle): (u32, u32), name: &str) -> String {
    let half_width = goal.half_width.map_or_else(String::new, |share| {
        format!(
            ", and on until the interval of CPU/request has at most the half width {} % (\"reached\")",
            share * 100.0
        )
    });
    format!(
        "# Cost of being watched\nBy `cargo xtask bench overhead` on {}; load generator, services and agent share the cores.\n\n\
         Windows of {seconds} s without and with the agent in turns, on the same live processes; which comes first changes from pair to \
         pair. Before each there is {WARM} s of the same load, with the agent {settle} s, as its first window is on credit. {} pairs of each \
         case{half_width}. 100 % is a closed loop, 30 % and 70 % are fixed rates: shares of what a closed loop of {CAPACITY} s carried \
         before; other rates are named. 4 connections, of the ping-pong 1.\n\n\
         Ratios are with / without: Hodges and Lehmann's estimate of the pairs' ratios, and its 95 % interval (percentile bootstrap). \
         Absolute figures are medians. CPU is that of the service's threads by the scheduler's account, latency is from a request's \
         sending to its answer's first byte. \"By the account\" is the CPU/request ratio by the agent's own metric \
         `whywait.overhead.cpu.time` over the same windows, and \"within\" says whether it lies in the measured interval. The agent's own CPU is of one core. A request of the ping-pong is 10,000 \
         switches of goroutines. A bar is met or \
         missed when the whole interval lies on one side of it, and not decided otherwise, or by fewer than {FEWEST} pairs: requests/s \
         and CPU/request within 1 %, p99 within 2 %.\n\n\
         ![CPU/request with the agent over that without]({name}.svg)\n",
        service::machine(),
        goal.pairs,
    )
}

fn section(set: &Set, rows: &[&Row], goal: &Goal) -> String {
    let mut text = format!("\n## {}{}\n", set.name[..1].to_uppercase(), &set.name[1..]);
    if let Watcher::Agent(args) = set.watcher
        && !args.is_empty()
    {
        let _ = writeln!(text, "`{}`\n", args.join(" "));
    }
    text += COST;
    rows.iter().for_each(|row| text += &cost(row, goal));
    text.push('\n');
    text += LATENCY;
    rows.iter().for_each(|row| text += &latency(row));
    text
}

fn cost(row: &Row, goal: &Goal) -> String {
    let accounts: Vec<f64> = row.pairs.iter().filter_map(|pair| pair.account).collect();
    let (rate, cpu) = (row.ratio(|window| window.per_second), row.cpu_ratio());
    let (Some(rate), Some(cpu)) = (rate, cpu) else {
        return format!("| {} | 0 | | | | | | | | | |\n", row.name);
    };
    let reached = match goal.half_width {
        None => "",
        Some(_) if goal.reached(row) => ", reached",
        Some(_) => ", not reached",
    };
    let mut agents: Vec<f64> = row.pairs.iter().filter_map(|pair| pair.agent).collect();
    let agent = match agents.is_empty() {
        true => String::new(),
        false => format!("{:.1} %", 100.0 * median(&mut agents)),
    };
    let account = estimate(&accounts).map_or("| ".to_owned(), |account| {
        let within = if cpu.holds(account.value) { "yes" } else { "no" };
        format!("{:.4} | {within}", account.value)
    });
    format!(
        "| {} | {}{reached} | {} | {} | {} | {} | {} | {} | {account} | {agent} |\n",
        row.name,
        row.pairs.len(),
        both(row, 0, |window| window.per_second),
        both(row, 1, |window| window.cpu / 1e3),
        shown(rate),
        verdict(row, rate, RATE_BAR),
        shown(cpu),
        verdict(row, cpu, CPU_BAR),
    )
}

fn latency(row: &Row) -> String {
    let ratios = [
        row.ratio(|window| window.p50),
        row.ratio(|window| window.p99),
        row.ratio(|window| window.p999),
    ];
    let [Some(p50), Some(p99), Some(p999)] = ratios else {
        return format!("| {} | | | | | |\n", row.name);
    };
    format!(
        "| {} | {} | {} | {} | {} | {} |\n",
        row.name,
        both(row, 0, |window| window.p50 / 1e3),
        shown(p50),
        shown(p99),
        verdict(row, p99, P99_BAR),
        shown(p999),
    )
}

/// Medians without and with, to so many digits.
fn both(row: &Row, digits: usize, figure: fn(&Window) -> f64) -> String {
    let mut without: Vec<f64> = row.pairs.iter().map(|pair| figure(&pair.without)).collect();
    let mut with: Vec<f64> = row.pairs.iter().map(|pair| figure(&pair.with)).collect();
    format!("{:.digits$} → {:.digits$}", median(&mut without), median(&mut with))
}

fn shown(ratio: Estimate) -> String {
    format!("{:.3} ({:.3}–{:.3})", ratio.value, ratio.low, ratio.high)
}

/// What a ratio should be; better is as good.
#[derive(Clone, Copy)]
enum Bar {
    Least(f64),
    Most(f64),
}

impl Bar {
    fn verdict(self, ratio: Estimate, pairs: usize) -> &'static str {
        let (met, missed) = match self {
            Bar::Least(bar) => (ratio.low >= bar, ratio.high < bar),
            Bar::Most(bar) => (ratio.high <= bar, ratio.low > bar),
        };
        match (met, missed) {
            (true, _) if pairs >= FEWEST => "met",
            (_, true) if pairs >= FEWEST => "**missed**",
            _ => "not decided",
        }
    }
}

fn verdict(row: &Row, ratio: Estimate, bar: Bar) -> &'static str {
    if row.set.barred {
        bar.verdict(ratio, row.pairs.len())
    } else {
        "none"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bar: Bar, (low, high): (f64, f64), pairs: usize, expected: &str) {
        let value = f64::midpoint(low, high);
        assert_eq!(
            bar.verdict(Estimate { value, low, high }, pairs),
            expected,
            "{low} {high}"
        );
    }

    #[test]
    fn verdicts() {
        check(CPU_BAR, (0.99, 1.01), 8, "met");
        check(CPU_BAR, (0.90, 0.95), 8, "met");
        check(CPU_BAR, (1.005, 1.02), 8, "not decided");
        check(CPU_BAR, (1.02, 1.03), 8, "**missed**");
        check(CPU_BAR, (1.02, 1.03), FEWEST - 1, "not decided");
        check(RATE_BAR, (0.99, 1.0), 8, "met");
        check(RATE_BAR, (0.98, 1.0), 8, "not decided");
        check(RATE_BAR, (0.9, 0.98), 8, "**missed**");
    }
}
