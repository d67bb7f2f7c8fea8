//! The results, for people and as JSON.

use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write as _},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{plan::Plan, sender::Run};

#[derive(Serialize)]
pub(crate) struct Report {
    urls: Vec<String>,
    /// Requests a second as asked for; 0: as many as possible.
    rate: f64,
    /// Answered requests a second.
    achieved_rate: f64,
    /// Begin and end on CLOCK_MONOTONIC.
    begin_mono_ns: u64,
    end_mono_ns: u64,
    count: u64,
    errors: u64,
    first_error: Option<String>,
    /// Due before the end and not sent: with any, the latencies are better than the truth.
    unsent: u64,
    /// From the moment a request was due to the first byte of its answer.
    from_due: Latency,
    /// From just before a request was written to the first byte of its answer.
    from_sent: Latency,
}

#[derive(Serialize)]
struct Latency {
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    mean_ns: f64,
    /// Each recorded value, to 3 significant digits, with its count.
    histogram: Vec<(u64, u64)>,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Latency {
        let recorded = histogram.iter_recorded();
        Latency {
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
            mean_ns: histogram.mean(),
            histogram: recorded.map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
        }
    }
}

impl Report {
    pub(crate) fn new(plan: &Plan, run: &Run) -> Report {
        let seconds = (run.end_ns - run.begin_ns) as f64 / 1e9;
        Report {
            urls: plan.targets.iter().map(ToString::to_string).collect(),
            rate: plan.rate,
            achieved_rate: run.answered() as f64 / seconds,
            begin_mono_ns: run.begin_ns,
            end_mono_ns: run.end_ns,
            count: run.answered(),
            errors: run.errors,
            first_error: run.first_error.clone(),
            unsent: run.unsent,
            from_due: Latency::new(&run.from_due),
            from_sent: Latency::new(&run.from_sent),
        }
    }

    pub(crate) fn write_json(&self, file: File) -> anyhow::Result<()> {
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.flush()?;
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.end_mono_ns - self.begin_mono_ns) as f64 / 1e9;
        writeln!(
            f,
            "{} answers in {seconds:.1} s: {:.1}/s",
            self.count, self.achieved_rate
        )?;
        writeln!(
            f,
            "{:>16} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "latency in ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, latency) in [("since due", &self.from_due), ("since sent", &self.from_sent)] {
            write!(f, "{name:>16}")?;
            let Latency {
                p50_ns,
                p90_ns,
                p99_ns,
                p999_ns,
                max_ns,
                ..
            } = latency;
            for ns in [p50_ns, p90_ns, p99_ns, p999_ns, max_ns] {
                write!(f, " {:>9.3}", *ns as f64 / 1e6)?;
            }
            writeln!(f)?;
        }
        if let Some(error) = &self.first_error {
            writeln!(f, "{} errors, the first: {error}", self.errors)?;
        }
        if self.unsent > 0 {
            writeln!(
                f,
                "{} requests were due and not sent: all connections were busy (more --connections, or a lower --rate)",
                self.unsent
            )?;
        }
        Ok(())
    }
}
