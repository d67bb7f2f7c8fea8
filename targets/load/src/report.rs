//! The results, as lines to read and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::worker::Tally;

#[derive(Serialize)]
pub struct Report {
    /// Requests answered with a 2xx; the histograms hold these alone.
    count: u64,
    /// The same by URL, in the order of the command line.
    count_by_url: Vec<u64>,
    errors: u64,
    error_messages: BTreeMap<String, u64>,
    /// Requests due before the end that no connection was free to send, or that were not answered soon after it.
    unanswered: u64,
    wanted_rate: f64,
    achieved_rate: f64,
    elapsed_ns: u64,
    /// From the time a request was due to the first byte of its answer.
    latency: Latencies,
    /// From the time a request was sent to the first byte of its answer.
    service: Latencies,
}

#[derive(Serialize)]
struct Latencies {
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    mean_ns: f64,
    /// Value and count; a value is the highest of its bucket, exact to 3 significant figures.
    histogram: Vec<[u64; 2]>,
}

impl Latencies {
    fn new(recorded: &Histogram<u64>) -> Self {
        let histogram = recorded
            .iter_recorded()
            .map(|step| [step.value_iterated_to(), step.count_since_last_iteration()])
            .collect();
        let at = |quantile| recorded.value_at_quantile(quantile);
        let (p50_ns, p90_ns, p99_ns, p999_ns) = (at(0.5), at(0.9), at(0.99), at(0.999));
        Self {
            p50_ns,
            p90_ns,
            p99_ns,
            p999_ns,
            max_ns: recorded.max(),
            mean_ns: recorded.mean(),
            histogram,
        }
    }
}

impl Report {
    pub fn new(tally: &Tally, wanted_rate: f64, elapsed: Duration) -> Self {
        let count: u64 = tally.answered.iter().sum();
        // Of a closed loop nothing is due. The last request may be due just as the time is up: that one isn't missed.
        let due = (wanted_rate * elapsed.as_secs_f64()) as u64;
        Self {
            count,
            count_by_url: tally.answered.clone(),
            errors: tally.errors,
            error_messages: tally.messages.clone(),
            unanswered: due.saturating_sub(count + tally.errors),
            wanted_rate,
            achieved_rate: count as f64 / elapsed.as_secs_f64(),
            elapsed_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            latency: Latencies::new(&tally.latency),
            service: Latencies::new(&tally.service),
        }
    }

    pub fn all_failed(&self) -> bool {
        self.count == 0 && self.errors > 0
    }

    /// The errors' messages, most frequent first.
    pub fn errors(&self) -> String {
        let mut messages: Vec<_> = self.error_messages.iter().collect();
        messages.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        messages
            .iter()
            .map(|(message, count)| format!("{count} × {message}"))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed_ns as f64 / 1e9;
        writeln!(
            f,
            "{} answers in {seconds:.1} s, {:.1} a second",
            self.count, self.achieved_rate
        )?;
        if self.unanswered > 0 {
            writeln!(
                f,
                "{} requests were due and not answered: try more --connections, or less --rate",
                self.unanswered
            )?;
        }
        if self.errors > 0 {
            writeln!(f, "{} errors: {}", self.errors, self.errors())?;
        }
        writeln!(
            f,
            "{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, of) in [("from the due time", &self.latency), ("from sending", &self.service)] {
            write!(f, "{name:<18}")?;
            for ns in [of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.max_ns] {
                write!(f, "{:>10.3}", ns as f64 / 1e6)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
