//! Pairs of windows, without and with the agent, on the same live processes.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    super::{
        service::{self, Running, Window},
        stats::{Estimate, estimate},
    },
    account,
    cases::{self, Case, Level, Service, Set, Watcher},
};
use crate::{progress, sh};

/// Load of the same kind before each window, s: what the first requests cost is not in it.
pub(super) const WARM: u32 = 1;
/// How long a capacity is measured, s.
pub(super) const CAPACITY: u32 = 3;
/// An interval of fewer pairs is little more than their range: nothing is decided by it.
pub(super) const FEWEST: usize = 6;

/// A case at a level, in a set: a line of the report.
pub(super) struct Row {
    pub(super) case: &'static Case,
    pub(super) set: &'static Set,
    pub(super) name: String,
    /// Requests a second; 0: a closed loop.
    rate: f64,
    pub(super) pairs: Vec<Pair>,
}

/// One window of each kind.
pub(super) struct Pair {
    pub(super) without: Window,
    pub(super) with: Window,
    /// CPU/request ratio by the agent's own account of the window with it; None where no agent ran.
    pub(super) account: Option<f64>,
    /// CPU time of the agent itself over the window's length; None where no agent ran.
    pub(super) agent: Option<f64>,
}

impl Row {
    /// `capacity` is what a closed loop carries, requests a second.
    pub(super) fn new(case: &'static Case, level: Level, set: &'static Set, capacity: f64) -> Self {
        Self {
            case,
            set,
            name: cases::name(case, level),
            rate: level.rate(capacity),
            pairs: Vec::new(),
        }
    }

    /// With / without.
    pub(super) fn ratio(&self, figure: impl Fn(&Window) -> f64) -> Option<Estimate> {
        let ratio = |pair: &Pair| figure(&pair.with) / figure(&pair.without);
        estimate(&self.pairs.iter().map(ratio).collect::<Vec<_>>())
    }

    pub(super) fn cpu_ratio(&self) -> Option<Estimate> {
        self.ratio(|window| window.cpu)
    }

    fn half_width(&self) -> f64 {
        self.cpu_ratio().map_or(f64::INFINITY, Estimate::half_width)
    }
}

/// When enough was measured.
pub(super) struct Goal {
    pub(super) pairs: usize,
    /// Of the interval of CPU/request; `pairs` are the fewest then.
    pub(super) half_width: Option<f64>,
    pub(super) until: Option<Instant>,
}

impl Goal {
    pub(super) fn reached(&self, row: &Row) -> bool {
        enough(self.pairs, self.half_width, row.pairs.len(), || row.half_width())
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

fn enough(pairs: usize, half_width: Option<f64>, have: usize, width: impl FnOnce() -> f64) -> bool {
    have >= pairs && half_width.is_none_or(|wanted| width() <= wanted)
}

/// The services that live through the whole run, and the agent that is started beside them.
pub(super) struct Bed {
    folder: PathBuf,
    agent: PathBuf,
    out: PathBuf,
    /// Load of the same kind before a window with the agent, s.
    pub(super) settle: u32,
    shop: (Running, String),
    stock: (Running, String),
}

impl Bed {
    /// Starts the services in `folder`; the agent writes into `out`.
    pub(super) fn start(folder: PathBuf, agent: PathBuf, out: PathBuf, settle: u32) -> Result<Self> {
        let stock = service::service(&folder, "rust-stock", &[])?;
        let shop = service::service(&folder, "go-shop", &["--stock", &format!("http://{}", stock.1)])?;
        Ok(Self {
            folder,
            agent,
            out,
            settle,
            shop,
            stock,
        })
    }

    /// Answers a second of a closed loop without the agent.
    pub(super) fn capacity(&self, case: &Case) -> Result<f64> {
        self.window(case, 0.0, WARM)?;
        Ok(self.window(case, 0.0, CAPACITY)?.per_second)
    }

    pub(super) fn window(&self, case: &Case, rate: f64, seconds: u32) -> Result<Window> {
        let (running, address) = self.of(case);
        let url = format!("http://{address}{}", case.path);
        service::window(&self.folder, running.pid(), &url, (rate, case.connections), seconds)
    }

    /// Does `work`, in windows of so many `seconds`, with the agent's pid while it watches both services.
    pub(super) fn watched<T>(&self, args: &[&str], seconds: u32, work: impl FnOnce(u32) -> Result<T>) -> Result<T> {
        // It appends to what an earlier one wrote.
        if self.out.exists() {
            std::fs::remove_dir_all(&self.out)?;
        }
        let interval = format!("{}s", account::interval(seconds));
        let args = [args, &["--metric-interval", &interval]].concat();
        let pids = [self.shop.0.pid(), self.stock.0.pid()];
        let agent = service::agent(&self.agent, &pids, &args, &self.out)?;
        let result = work(agent.pid())?;
        agent.end()?;
        Ok(result)
    }

    /// Does `work` while the services' probes are in place with empty programs.
    fn trapped<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let pids = [&self.shop, &self.stock].map(|(service, _)| service.pid().to_string());
        let mut traps = Command::new(sh::target().join("release/examples/traps"));
        traps.args(&pids);
        let ready = |line: &str| line.contains(" watching ").then(String::new);
        let (traps, _) = Running::start(traps, pids.len(), ready)?;
        let result = work()?;
        traps.end()?;
        Ok(result)
    }

    fn of(&self, case: &Case) -> &(Running, String) {
        match case.service {
            Service::Shop => &self.shop,
            Service::Stock => &self.stock,
        }
    }

    fn pair(&self, row: &Row, seconds: u32, agent_first: bool) -> Result<Pair> {
        let ((with, agent), without);
        if agent_first {
            (with, agent) = self.with(row, seconds)?;
            without = self.without(row, seconds)?;
        } else {
            without = self.without(row, seconds)?;
            (with, agent) = self.with(row, seconds)?;
        }
        let account = match row.set.watcher {
            Watcher::Agent(_) => {
                let cost = account::cost(&self.out, self.of(row.case).0.pid(), with.began, with.ended)?;
                // The share of what the service used for itself: the agent's cost is in what it used in all.
                Some(1.0 + cost / (with.cpu * with.requests - cost))
            }
            Watcher::Traps | Watcher::Nobody => None,
        };
        Ok(Pair {
            without,
            with,
            account,
            agent,
        })
    }

    fn without(&self, row: &Row, seconds: u32) -> Result<Window> {
        self.window(row.case, row.rate, WARM)?;
        self.window(row.case, row.rate, seconds)
    }

    /// The window, and the agent's own CPU use in it, cores.
    fn with(&self, row: &Row, seconds: u32) -> Result<(Window, Option<f64>)> {
        let settle = || self.window(row.case, row.rate, self.settle);
        let window = || self.window(row.case, row.rate, seconds);
        match row.set.watcher {
            Watcher::Agent(args) => self.watched(args, seconds, |agent| {
                settle()?;
                let before = service::used(agent)?.cpu;
                let window = window()?;
                let cores = (service::used(agent)?.cpu - before) / f64::from(seconds);
                Ok((window, Some(cores)))
            }),
            Watcher::Traps => self.trapped(|| {
                settle()?;
                Ok((window()?, None))
            }),
            Watcher::Nobody => {
                settle()?;
                Ok((window()?, None))
            }
        }
    }
}

/// Takes pairs of all rows in turns until the goal is reached.
pub(super) fn measure(bed: &Bed, rows: &mut [Row], goal: &Goal, seconds: u32) -> Result<()> {
    let begin = Instant::now();
    loop {
        let mut idle = true;
        for (at, row) in rows.iter_mut().enumerate() {
            if goal.reached(row) {
                continue;
            }
            if goal.is_over() {
                return Ok(());
            }
            idle = false;
            let pair = bed.pair(row, seconds, (at + row.pairs.len()) % 2 == 1)?;
            row.pairs.push(pair);
            progress::note(&said(row, begin.elapsed()));
        }
        if idle {
            return Ok(());
        }
    }
}

fn said(row: &Row, elapsed: Duration) -> String {
    let so_far = row.cpu_ratio().map_or_else(String::new, |ratio| {
        format!("{:.4} ± {:.4}", ratio.value, ratio.half_width())
    });
    format!(
        "{} s, {}, {}, pair {}: CPU/request {so_far}",
        elapsed.as_secs(),
        row.set.name,
        row.name,
        row.pairs.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_was_measured() {
        let check = |half_width, have, width, expected| {
            assert_eq!(
                enough(8, half_width, have, || width),
                expected,
                "{half_width:?} {have} {width}"
            );
        };
        check(None, 7, 0.0, false);
        check(None, 8, 0.5, true);
        check(Some(0.01), 7, 0.001, false);
        check(Some(0.01), 8, 0.02, false);
        check(Some(0.01), 30, 0.01, true);
    }
}
