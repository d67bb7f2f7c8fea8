//! What the kernel's hooks cost threads that are nobody's target: pairs of threads of this very process that wake each other,
//! without and with the agent, whose target is another process.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{
    overhead::programs::{Accounting, added},
    plot::{self, Panel},
    service,
    stats::{Estimate, estimate},
};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Threads that are no target's, an even number
    #[arg(long, default_value_t = 10_000)]
    threads: usize,
    /// Windows without the agent, each with one with it
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Length of a window
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Measure the agent and the services as they are built
    #[arg(long)]
    as_built: bool,
}

/// The hooks count all the while.
const ARGS: &[&str] = &["--budget", "off"];
/// What a switch may cost, ns.
const BAR: f64 = 60.0;
/// An empty program of the agent's own, which it times at its start.
const EMPTY: &str = "calibrate";
const STACK: usize = 64 << 10;
/// A pair sleeps for so long, then wakes each other so often: 10,000 threads switch some 50,000 times a second, without taking
/// the machine's cores whole.
const PAUSE: Duration = Duration::from_millis(500);
const ROUNDS: u64 = 2;
/// A sleep, and two a round.
const SWITCHES: u64 = 1 + 2 * ROUNDS;

pub(super) fn run(options: Options) -> Result<()> {
    if !sh::is_root() {
        bail!("the agent attaches as root only: run this as root");
    }
    if options.threads < 2 || !options.threads.is_multiple_of(2) || options.pairs == 0 || options.seconds == 0 {
        bail!("--threads is an even number from 2, --pairs and --seconds start at 1");
    }
    let (agent, folder) = service::programs(options.as_built)?;
    let (shop, _) = service::service(&folder, "go-shop", &[])?;
    let out = sh::target().join("xtask/bench-out");
    let watch = || service::agent(&agent, &[shop.pid()], ARGS, &out);
    let threads = Threads::start(options.threads / 2)?;
    let length = Duration::from_secs(options.seconds);
    threads.window(length)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 1..=options.pairs {
        progress::note(&format!("pair {pair} of {}", options.pairs));
        without.push(threads.window(length)?);
        let agent = watch()?;
        with.push(threads.window(length)?);
        agent.end()?;
    }
    let programs = programs(&threads, length, watch)?;
    let text = report(&options, &without, &with, &programs);
    threads.end();
    service::keep("foreign.svg", &picture(&programs)?)?;
    service::publish("foreign.md", &text)
}

/// Of programs that run with threads' switches and wakeups, not once or twice.
fn picture(programs: &[Program]) -> Result<String> {
    const OFTEN: u64 = 1000;
    let often = programs.iter().filter(|program| program.hits >= OFTEN);
    plot::panels(&[Panel {
        title: "Of no target's thread: ns a hit; the line is the bar".to_owned(),
        rows: often
            .map(|program| (program.name.clone(), Estimate::exact(program.each)))
            .collect(),
        even: None,
        bar: Some(BAR),
    }])
}

/// A program's hits and time in it, ns, less what the account itself adds.
struct Program {
    name: String,
    hits: u64,
    each: f64,
}

/// By the kernel's account, in a window of its own, as keeping it costs too.
fn programs(
    threads: &Threads,
    length: Duration,
    watch: impl FnOnce() -> Result<service::Running>,
) -> Result<Vec<Program>> {
    let Some(accounting) = Accounting::begin()? else {
        bail!("no bpftool here: it reads the kernel's account of programs (Debian: apt-get install bpftool)");
    };
    let agent = watch()?;
    let before = accounting.read(agent.pid())?;
    threads.window(length)?;
    let after = accounting.read(agent.pid())?;
    let (runs, ns) = after.get(EMPTY).copied().unwrap_or_default();
    if runs == 0 {
        bail!("the agent's empty program never ran: what the account adds is not known");
    }
    let empty = ns as f64 / runs as f64;
    agent.end()?;
    let added = added(&before, &after).into_iter();
    Ok(added
        .map(|(name, (hits, ns))| Program {
            name,
            hits,
            each: ns as f64 / hits as f64 - empty,
        })
        .collect())
}

/// What a window saw.
struct Seen {
    per_second: f64,
    /// CPU time of all threads a switch, ns.
    cpu: f64,
}

/// Pairs of threads that wake each other.
struct Threads {
    over: Arc<AtomicBool>,
    /// By pair.
    switches: Vec<Arc<AtomicU64>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(pairs: usize) -> Result<Self> {
        let mut threads = Self {
            over: Arc::default(),
            switches: Vec::new(),
            handles: Vec::new(),
        };
        for _ in 0..pairs {
            let (to_second, second) = mpsc::sync_channel(1);
            let (to_first, first) = mpsc::sync_channel(1);
            let (over, switches) = (threads.over.clone(), Arc::new(AtomicU64::new(0)));
            threads.switches.push(switches.clone());
            threads.spawn(move || {
                while !over.load(Relaxed) {
                    thread::sleep(PAUSE);
                    for _ in 0..ROUNDS {
                        if to_second.send(()).is_err() || first.recv().is_err() {
                            return;
                        }
                    }
                    switches.fetch_add(SWITCHES, Relaxed);
                }
            })?;
            threads.spawn(move || while second.recv().is_ok() && to_first.send(()).is_ok() {})?;
        }
        Ok(threads)
    }

    fn spawn(&mut self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().stack_size(STACK).spawn(work);
        let started = self.handles.len();
        self.handles
            .push(thread.with_context(|| format!("cannot start more than {started} threads: use fewer --threads"))?);
        Ok(())
    }

    fn window(&self, length: Duration) -> Result<Seen> {
        let now = || -> Result<_> {
            let switches: u64 = self.switches.iter().map(|pair| pair.load(Relaxed)).sum();
            Ok((switches, service::used(std::process::id())?.cpu))
        };
        let (before, cpu) = now()?;
        thread::sleep(length);
        let (after, cpu) = {
            let (after, now) = now()?;
            (after, now - cpu)
        };
        let switches = (after - before) as f64;
        if switches == 0.0 {
            bail!("no thread woke another");
        }
        Ok(Seen {
            per_second: switches / length.as_secs_f64(),
            cpu: cpu * 1e9 / switches,
        })
    }

    fn end(self) {
        self.over.store(true, Relaxed);
        for handle in self.handles {
            // One that panicked has ended, too.
            let _ = handle.join();
        }
    }
}

fn report(options: &Options, without: &[Seen], with: &[Seen], programs: &[Program]) -> String {
    let ratios: Vec<f64> = without
        .iter()
        .zip(with)
        .map(|(one, other)| other.cpu / one.cpu)
        .collect();
    let of = |seen: &[Seen], figure: fn(&Seen) -> f64| {
        let mut values: Vec<f64> = seen.iter().map(figure).collect();
        super::stats::median(&mut values)
    };
    let mut text = format!(
        "# Cost for threads of other processes\nMeasured by `cargo xtask bench foreign` on {}: {} threads, in pairs that sleep and \
         wake each other. The agent's target is another process, and its hooks always count (`--budget off`). {} windows of {} s each, \
         with and without the agent in turns.\n\n| | without | with |\n|---|---|---|\n| switches/s | {:.0} | {:.0} |\n| CPU/switch, ns \
         | {:.0} | {:.0} |\n\n",
        service::machine(),
        options.threads,
        options.pairs,
        options.seconds,
        of(without, |seen| seen.per_second),
        of(with, |seen| seen.per_second),
        of(without, |seen| seen.cpu),
        of(with, |seen| seen.cpu),
    );
    if let Some(ratio) = estimate(&ratios) {
        let _ = writeln!(
            text,
            "CPU/switch with / without: {:.3} ({:.3}–{:.3}, 95 %).\n",
            ratio.value, ratio.low, ratio.high
        );
    }
    text += "![Time in programs](foreign.svg)\n\n";
    let _ = write!(
        text,
        "From the kernel's statistics of programs in one more window, minus those of an empty program; the bar is {BAR} ns per \
         switch.\n\n| program | hits | ns/hit |\n|---|---|---|\n"
    );
    for Program { name, hits, each } in programs {
        let _ = writeln!(text, "| {name} | {hits} | {each:.0} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_switch_and_end() {
        let threads = Threads::start(4).unwrap();
        let seen = threads.window(3 * PAUSE).unwrap();
        threads.end();
        assert!(seen.per_second > 0.0);
    }

    #[test]
    fn a_report_has_both_ways_and_each_program() {
        let seen = |cpu| Seen { per_second: 5.0, cpu };
        let options = Options {
            threads: 2,
            pairs: 2,
            seconds: 1,
            as_built: true,
        };
        let programs = [Program {
            name: "thread_switch".to_owned(),
            hits: 7,
            each: 12.3,
        }];
        let text = report(
            &options,
            &[seen(100.0), seen(100.0)],
            &[seen(102.0), seen(102.0)],
            &programs,
        );
        assert!(text.contains("| CPU/switch, ns | 100 | 102 |"), "{text}");
        assert!(text.contains("1.020 (1.020–1.020"), "{text}");
        assert!(text.ends_with("| thread_switch | 7 | 12 |\n"), "{text}");
    }
}
