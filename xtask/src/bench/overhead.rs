//! Cost of being watched: windows without and with the agent in turns, on the same two live processes.

mod account;
mod cases;
mod measure;
mod plot;
pub(super) mod programs;
mod report;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    cases::{Case, LEVELS, Level, SETS, Set, Watcher},
    measure::{Bed, FEWEST, Goal, Row},
};
use crate::{build, demo_build, progress, setup, sh};

/// Names of the report and of its plot: of shares of what services carry, and of rates.
const REPORT: &str = "overhead";
const OF_RATES: &str = "rates";

#[derive(Args)]
pub(crate) struct Options {
    /// Pairs of windows, one without and one with the agent, of each case; with --half-width the fewest
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Go on until the 95 % interval of each case's CPU/request has at most this half width, e.g. 1%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    half_width: Option<f64>,
    /// Begin no pair after this long
    #[arg(long)]
    minutes: Option<u64>,
    /// Length of a window; shorter ones mostly hold none of the agent's own windows, in which its cost lies
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How long the agent has watched before a window; under a budget its first window is on credit
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    settle: u32,
    /// Only cases with this in their name, e.g. "ping-pong, 30"; may be given more than once
    #[arg(long = "case", value_name = "NAME_PART", default_values_t = [String::new()], hide_default_value = true)]
    cases: Vec<String>,
    /// At these rates, requests a second, instead of at shares of what a closed loop carries: all cases, unless --case chooses
    #[arg(long = "rate", value_name = "RATE", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,
    /// Ways to run the agent with this in their name, e.g. "plane 0" or "budget" (all but one); may be given more than once
    #[arg(long = "set", value_name = "NAME_PART", default_values_t = ["under the budget".to_owned()])]
    sets: Vec<String>,
    /// Measure what each kernel program costs, too
    #[arg(long)]
    programs: bool,
    /// Measure this build of the agent and leave the report as it is
    #[arg(long)]
    agent: Option<PathBuf>,
}

pub(super) fn run(options: Options) -> Result<()> {
    if options.pairs == 0 || options.seconds == 0 {
        bail!("--pairs and --seconds start at 1");
    }
    if options.half_width.is_some() && options.pairs < FEWEST {
        bail!("--half-width: an interval needs --pairs {FEWEST} at least");
    }
    let chosen = chosen(&options)?;
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    let (agent, folder) = match &options.agent {
        Some(agent) => (agent.clone(), demo_build::folder()),
        None => {
            let tools = setup::ensure(setup::Wanted::default())?;
            (build::agent()?, demo_build::all(&tools)?)
        }
    };
    if chosen.sets.iter().any(|set| matches!(set.watcher, Watcher::Traps)) {
        super::ingest::examples()?;
    }
    let bed = Bed::start(folder, agent, sh::target().join("xtask/bench-out"), options.settle)?;
    let until = options
        .minutes
        .map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let goal = Goal {
        pairs: options.pairs,
        half_width: options.half_width,
        until,
    };
    let mut rows = rows(&bed, &chosen)?;
    let measured = measure::measure(&bed, &mut rows, &goal, options.seconds);
    let name = if options.rates.is_empty() { REPORT } else { OF_RATES };
    let mut text = report::text(&rows, &goal, (options.seconds, options.settle), name);
    if options.programs && measured.is_ok() {
        text += &programs::table(&bed, options.seconds)?;
    }
    // What was measured is shown even when a later pair failed.
    println!("{text}");
    measured?;
    let folder = match options.agent {
        None => sh::root().join("docs/bench"),
        Some(_) => sh::target().join("xtask"),
    };
    let [report, plot] = ["md", "svg"].map(|kind| folder.join(format!("{name}.{kind}")));
    write(&plot, &plot::svg(&rows)?)?;
    write(&report, &text)
}

/// Cases and sets as the options name them.
struct Chosen {
    cases: Vec<(&'static Case, Level)>,
    sets: Vec<&'static Set>,
}

fn chosen(options: &Options) -> Result<Chosen> {
    let rates: Vec<Level> = options.rates.iter().copied().map(Level::Rate).collect();
    let all = cases::all(if rates.is_empty() { &LEVELS } else { &rates });
    let names: Vec<String> = all.iter().map(|(case, level)| cases::name(case, *level)).collect();
    let sets = SETS.map(|set| set.name.to_owned());
    let cases = cases::choose("--case", &options.cases, &names)?;
    let sets = cases::choose("--set", &options.sets, &sets)?;
    Ok(Chosen {
        cases: cases.into_iter().map(|at| all[at]).collect(),
        sets: sets.into_iter().map(|at| &SETS[at]).collect(),
    })
}

/// A row for each case in each set; what a case carries is measured once, so that all sets are loaded alike.
fn rows(bed: &Bed, chosen: &Chosen) -> Result<Vec<Row>> {
    let mut capacities = BTreeMap::new();
    for (case, level) in &chosen.cases {
        if matches!(level, Level::Share(_)) && !capacities.contains_key(case.name) {
            let capacity = bed.capacity(case)?;
            progress::note(&format!("{}: {capacity:.0} requests/s without the agent", case.name));
            capacities.insert(case.name, capacity);
        }
    }
    let of_set = |set| {
        let row = |(case, level): &(&'static Case, Level)| {
            let capacity = capacities.get(case.name).copied().unwrap_or_default();
            Row::new(case, *level, set, capacity)
        };
        chosen.cases.iter().map(row).collect::<Vec<_>>()
    };
    Ok(chosen.sets.iter().copied().flat_map(of_set).collect())
}

/// "1%" or "0.01".
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number / unit < 1.0 => Ok(number / unit),
        _ => Err("a share is needed, such as 1%".to_owned()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    sh::create(path)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let short = path.strip_prefix(sh::root()).unwrap_or(path);
    progress::note(&format!("wrote {}", short.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let check = |text, expected| assert_eq!(share(text).ok(), expected, "{text}");
        check("1%", Some(0.01));
        check("0.5 %", Some(0.005));
        check("0.02", Some(0.02));
        check("1", None);
        check("0%", None);
        check("-1%", None);
        check("NaN", None);
    }
}
