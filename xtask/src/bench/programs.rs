//! What a hit of each kernel program costs, by the kernel's statistics: of this agent, and of another build of it in turns.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;

use super::{
    overhead::programs::{Accounting, added},
    service::{self, Running},
    stats::median,
};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Another build of the agent, measured in turns with this one
    #[arg(long)]
    against: Option<PathBuf>,
    /// Requests a second, of a Go and of a tokio service each
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Length of a window
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Windows of each agent
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure the agent and the services as they are built
    #[arg(long)]
    as_built: bool,
}

/// All programs run all the while.
const ARGS: &[&str] = &["--budget", "off"];
/// An empty program of the agent's own, which it times at its start.
const EMPTY: &str = "calibrate";
/// How long the agent runs before a window.
const SETTLE: Duration = Duration::from_secs(5);
/// Programs with fewer hits in a window are left out.
const FEW: u64 = 100;

/// What windows showed of a program.
#[derive(Default)]
struct Seen {
    /// Hits a second, in the last window.
    rate: f64,
    /// As the kernel has translated them.
    instructions: u64,
    /// ns a hit, by window.
    cost: Vec<f64>,
}

type Programs = BTreeMap<String, Seen>;

pub(super) fn run(options: Options) -> Result<()> {
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    if options.rate == 0 || options.seconds == 0 || options.rounds == 0 {
        bail!("--rate, --seconds and --rounds start at 1");
    }
    let Some(accounting) = Accounting::begin()? else {
        bail!("no bpftool here: it reads the kernel's account of programs (Debian: apt-get install bpftool)");
    };
    let (agent, folder) = service::programs(options.as_built)?;
    let (stock, stock_at) = service::service(&folder, "rust-stock", &[])?;
    let (shop, shop_at) = service::service(&folder, "go-shop", &[])?;
    let pids = [shop.pid(), stock.pid()];
    let urls = [
        format!("http://{shop_at}/item?id={{n}}"),
        format!("http://{stock_at}/stock/{{n}}"),
    ];
    let load = |url: &String| {
        let load = service::load(&folder, url, (f64::from(options.rate), 4), 0);
        Running::start(load, 0, |_| None).map(|(load, _)| load)
    };
    let loads = urls.iter().map(load).collect::<Result<Vec<_>>>()?;
    let agents: Vec<&Path> = options
        .against
        .as_deref()
        .into_iter()
        .chain([agent.as_path()])
        .collect();
    let mut seen: Vec<Programs> = agents.iter().map(|_| Programs::new()).collect();
    for round in 1..=options.rounds {
        progress::note(&format!("round {round} of {}", options.rounds));
        for (agent, seen) in agents.iter().zip(&mut seen) {
            window(agent, &pids, options.seconds, &accounting, seen)?;
        }
    }
    for load in loads {
        load.dismiss()?;
    }
    println!("{}", report(&options, &mut seen));
    Ok(())
}

/// One window of an agent.
fn window(agent: &Path, pids: &[u32], seconds: u64, accounting: &Accounting, seen: &mut Programs) -> Result<()> {
    let out = sh::target().join("xtask/bench-out");
    let agent = service::agent(agent, pids, ARGS, &out)?;
    thread::sleep(SETTLE);
    let before = accounting.read(agent.pid())?;
    thread::sleep(Duration::from_secs(seconds));
    let after = accounting.read(agent.pid())?;
    let sizes = accounting.instructions(agent.pid())?;
    agent.end()?;
    let (runs, ns) = after.get(EMPTY).copied().unwrap_or_default();
    if runs == 0 {
        bail!("the agent's empty program never ran: what the account adds is not known");
    }
    let empty = ns as f64 / runs as f64;
    for (name, (hits, ns)) in added(&before, &after).into_iter().filter(|(_, (hits, _))| *hits >= FEW) {
        let instructions = sizes.get(&name).copied().unwrap_or_default();
        let program = seen.entry(name).or_default();
        program.rate = hits as f64 / seconds as f64;
        program.instructions = instructions;
        program.cost.push(ns as f64 / hits as f64 - empty);
    }
    Ok(())
}

fn report(options: &Options, seen: &mut [Programs]) -> String {
    let mut text = format!(
        "# Cost of a hit of each kernel program\nOn {}: {} requests/s at a Go and at a tokio service each, everything on. {} windows of {} s{}. By the kernel's \
         statistics, minus an empty program's; hits are the whole machine's, and those of processes that are no target cost little. The trap of a uprobe comes on top. \
         Instructions as the kernel has translated them.\n\n| program | hits/s |{}\n|---|---|{}\n",
        service::machine(),
        options.rate,
        options.rounds,
        options.seconds,
        if seen.len() > 1 {
            " of each agent in turns: the other one, this one"
        } else {
            ""
        },
        " instructions | ns/hit |".repeat(seen.len()),
        "---|---|".repeat(seen.len()),
    );
    let Some(last) = seen.last() else { return text };
    let names: Vec<(String, f64)> = last.iter().map(|(name, of)| (name.clone(), of.rate)).collect();
    for (name, rate) in names {
        let _ = write!(text, "| {name} | {rate:.0} |");
        for programs in &mut *seen {
            match programs.get_mut(&name) {
                Some(of) => {
                    let _ = write!(text, " {} | {:.0} |", of.instructions, median(&mut of.cost));
                }
                None => text += " – | – |",
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_both_agents_side_by_side() {
        let options = Options {
            against: None,
            rate: 1000,
            seconds: 1,
            rounds: 3,
            as_built: true,
        };
        let of = |instructions, cost: &[f64]| Seen {
            rate: 12.4,
            instructions,
            cost: cost.to_vec(),
        };
        let mut seen = [
            Programs::from([("a".to_owned(), of(100, &[300.0, 500.0, 310.0]))]),
            Programs::from([("a".to_owned(), of(90, &[100.0])), ("b".to_owned(), of(7, &[1.0]))]),
        ];
        let text = report(&options, &mut seen);
        assert!(text.contains("| a | 12 | 100 | 310 | 90 | 100 |\n"), "{text}");
        assert!(text.ends_with("| b | 12 | – | – | 7 | 1 |\n"), "{text}");
    }
}
