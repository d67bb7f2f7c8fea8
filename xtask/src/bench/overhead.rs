//! Cost of being watched: windows without and with the agent in turns, on the same two live processes.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use clap::Args;

use super::{
    programs::{self, Accounting},
    service::{self, Running, Window},
    stats::{estimate, median},
};
use crate::{build, demo_build, progress, setup, sh};

const REPORT: &str = "docs/bench/overhead.md";

#[derive(Args)]
pub(crate) struct Options {
    /// Windows without the agent, each followed by one with it
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Length of a window
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Measure without a budget too, and the kernel's hooks alone
    #[arg(long)]
    breakdown: bool,
    /// Measure this build of the agent and leave the report as it is
    #[arg(long)]
    agent: Option<PathBuf>,
}

/// What is measured, the agent's arguments for it, and whether the bars are its own.
const SETS: [(&str, &[&str], bool); 3] = [
    ("as it comes", &[], true),
    ("without a budget", UNLIMITED, false),
    (
        "without a budget, the kernel's hooks alone",
        &["--budget", "off", "--without", "go.sched,go.gc,tokio.poll,tokio.wake"],
        false,
    ),
];
const UNLIMITED: &[&str] = &["--budget", "off"];
/// Load of the same kind before each window, s: what the first requests cost, and what the agent must learn first, is not in it.
const WARM: u32 = 1;

/// A load.
struct Case {
    name: &'static str,
    /// The service that carries it.
    which: Which,
    path: &'static str,
    /// 0: a closed loop.
    rate: u32,
    connections: u32,
    /// For CPU per request, as it comes.
    bar: Option<f64>,
}

const fn case(
    name: &'static str,
    which: Which,
    path: &'static str,
    rate: u32,
    connections: u32,
    bar: Option<f64>,
) -> Case {
    Case {
        name,
        which,
        path,
        rate,
        connections,
        bar,
    }
}

const CASES: [Case; 6] = [
    case("go-shop, closed loop", Which::Shop, "/item?id={n}", 0, 4, Some(1.10)),
    case("go-shop, 2000/s", Which::Shop, "/item?id={n}", 2000, 4, Some(1.10)),
    case("rust-stock, closed loop", Which::Stock, "/stock/{n}", 0, 4, Some(1.20)),
    case("rust-stock, 5000/s", Which::Stock, "/stock/{n}", 5000, 4, Some(1.20)),
    // Some thousand GC cycles a second.
    case(
        "go-shop, allocations, closed loop",
        Which::Shop,
        "/alloc?mb=1",
        0,
        4,
        None,
    ),
    // Two goroutines that do nothing but switch: 5000 round trips a request.
    case(
        "go-shop, ping-pong, closed loop",
        Which::Shop,
        "/chan?n=5000",
        0,
        1,
        None,
    ),
];

#[derive(Clone, Copy)]
enum Which {
    Shop,
    Stock,
}

/// The services that live through the whole run.
struct Bed {
    folder: PathBuf,
    shop: (Running, String),
    stock: (Running, String),
}

impl Bed {
    fn start(folder: PathBuf) -> Result<Self> {
        let stock = service::service(&folder, "rust-stock", &[])?;
        let shop = service::service(&folder, "go-shop", &["--stock", &format!("http://{}", stock.1)])?;
        Ok(Self { folder, shop, stock })
    }

    fn pids(&self) -> [u32; 2] {
        [self.shop.0.pid(), self.stock.0.pid()]
    }

    fn window(&self, case: usize, seconds: u32) -> Result<Window> {
        let Case {
            which,
            path,
            rate,
            connections,
            ..
        } = &CASES[case];
        let (running, address) = match which {
            Which::Shop => &self.shop,
            Which::Stock => &self.stock,
        };
        let url = format!("http://{address}{path}");
        service::window(&self.folder, running.pid(), &url, (*rate, *connections), seconds)
    }

    fn windows(&self, seconds: u32) -> Result<Vec<Window>> {
        let warmed = |case| {
            self.window(case, WARM)?;
            self.window(case, seconds)
        };
        (0..CASES.len()).map(warmed).collect()
    }
}

/// Windows without and with the agent: one pair, all cases.
type Pair = (Vec<Window>, Vec<Window>);

pub(super) fn run(options: Options) -> Result<()> {
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    if options.pairs == 0 || options.seconds == 0 {
        bail!("--pairs and --seconds start at 1");
    }
    let (agent, folder) = match &options.agent {
        Some(agent) => (agent.clone(), demo_build::folder()),
        None => {
            let tools = setup::ensure(setup::Wanted::default())?;
            (build::agent()?, demo_build::all(&tools)?)
        }
    };
    let out = sh::target().join("xtask/bench-out");
    let bed = Bed::start(folder)?;
    bed.windows(1)?;
    let sets = if options.breakdown { &SETS[..] } else { &SETS[..1] };
    let mut pairs: Vec<Vec<Pair>> = sets.iter().map(|_| Vec::new()).collect();
    for round in 0..options.pairs {
        for (set, (name, args, _)) in sets.iter().enumerate() {
            progress::note(&format!("pair {} of {}, {name}", round + 1, options.pairs));
            let alone = bed.windows(options.seconds)?;
            let watched = watched(&bed, &agent, args, &out, |_| bed.windows(options.seconds))?;
            pairs[set].push((alone, watched));
        }
    }
    let mut text = head(&options);
    for ((name, args, barred), pairs) in sets.iter().zip(&pairs) {
        text += &table(name, args, *barred, pairs);
    }
    text += &account(&bed, &agent, &out, options.seconds)?;
    println!("{text}");
    if options.agent.is_none() {
        std::fs::create_dir_all(sh::root().join("docs/bench"))?;
        std::fs::write(sh::root().join(REPORT), text)?;
        progress::note(&format!("wrote {REPORT}"));
    }
    Ok(())
}

/// Does `work` with the agent's pid while it watches both services.
fn watched<T>(bed: &Bed, agent: &Path, args: &[&str], out: &Path, work: impl FnOnce(u32) -> Result<T>) -> Result<T> {
    let agent = service::agent(agent, &bed.pids(), args, out)?;
    let result = work(agent.pid())?;
    agent.end()?;
    Ok(result)
}

fn head(options: &Options) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = kernel.trim().split(['.', '-']).take(2).collect();
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let place = if processor.contains(" hypervisor") {
        "a virtual machine"
    } else {
        "no virtual machine"
    };
    format!(
        "# Cost of being watched\nBy `cargo xtask bench overhead`; {} pairs of windows of {} s, each after {WARM} s of the same load, without and with the agent in \
         turns, on the same live processes; 4 connections, of the ping-pong 1. Linux {}, {cores} cores, {place}; load generator, services and agent \
         share the cores.\nRatios are with / without: the median of the pairs, and its 95 % interval (bootstrap of the pairs' \
         ratios). CPU is that of the service's threads by the scheduler's account. Absolute figures are medians.\n",
        options.pairs,
        options.seconds,
        kernel.join("."),
    )
}

fn table(name: &str, args: &[&str], barred: bool, pairs: &[Pair]) -> String {
    let mut text = format!("\n## {}{}\n", name[..1].to_uppercase(), &name[1..]);
    if !args.is_empty() {
        let _ = writeln!(text, "`{}`\n", args.join(" "));
    }
    text += "| load | requests/s | CPU/request, µs | requests/s ratio | CPU/request ratio | bar | p50 ratio | p99 ratio |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for (case, Case { name, bar, .. }) in CASES.iter().enumerate() {
        let of = |figure: fn(&Window) -> f64| {
            let ratios: Vec<f64> = pairs
                .iter()
                .map(|(alone, watched)| figure(&watched[case]) / figure(&alone[case]))
                .collect();
            estimate(&ratios)
        };
        let both = |figure: fn(&Window) -> f64| {
            let mut alone: Vec<f64> = pairs.iter().map(|pair| figure(&pair.0[case])).collect();
            let mut watched: Vec<f64> = pairs.iter().map(|pair| figure(&pair.1[case])).collect();
            (median(&mut alone), median(&mut watched))
        };
        let ratio = |figure: fn(&Window) -> f64| {
            let ratio = of(figure);
            format!("{:.3} ({:.3}–{:.3})", ratio.median, ratio.low, ratio.high)
        };
        let (rate, cpu) = (both(|window| window.per_second), both(|window| window.cpu / 1000.0));
        let bar = match bar.filter(|_| barred) {
            None => "none".to_owned(),
            Some(bar) if of(|window| window.cpu).median <= bar => format!("≤ {bar:.2} met"),
            Some(bar) => format!("≤ {bar:.2} **missed**"),
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} → {:.0} | {:.1} → {:.1} | {} | {} | {bar} | {} | {} |",
            rate.0,
            rate.1,
            cpu.0,
            cpu.1,
            ratio(|window| window.per_second),
            ratio(|window| window.cpu),
            ratio(|window| window.p50),
            ratio(|window| window.p99),
        );
    }
    text
}

/// Time in each kernel program, in a run of its own, as the account itself costs.
fn account(bed: &Bed, agent: &Path, out: &Path, seconds: u32) -> Result<String> {
    let Some(accounting) = Accounting::begin()? else {
        return Ok("\nNo bpftool here: no table of the kernel programs.\n".to_owned());
    };
    let mut text = "\n## Kernel programs, closed loop, without a budget\nTime inside each program by the kernel's account; the trap of a uprobe \
                    comes on top. Hits are the whole machine's: kernel programs see every process.\n\n| load | program | hits/request | ns/hit | ns/request \
                    |\n|---|---|---|---|---|\n"
        .to_owned();
    watched(bed, agent, UNLIMITED, out, |pid| {
        for (case, Case { name, rate, .. }) in CASES.iter().enumerate() {
            if *rate != 0 {
                continue;
            }
            let before = accounting.read(pid)?;
            let window = bed.window(case, seconds)?;
            for (program, (hits, ns)) in programs::added(&before, &accounting.read(pid)?) {
                let (hits, ns) = (hits as f64, ns as f64);
                let _ = writeln!(
                    text,
                    "| {name} | {program} | {:.2} | {:.0} | {:.0} |",
                    hits / window.requests,
                    ns / hits,
                    ns / window.requests
                );
            }
        }
        Ok(())
    })?;
    Ok(text)
}
