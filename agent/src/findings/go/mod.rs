//! Rules of Go's runtime, and what it is known by.

pub mod above_quota;
pub mod assists;
pub mod facts;
pub mod forced;
pub mod gc_cpu;
pub mod late_stop;
pub mod leak;
pub mod limiter;
pub mod memory_limit;
pub mod mutex;
pub mod saturated;
pub mod small_heap;
pub mod threads;
pub mod too_few_processors;

use std::collections::BTreeMap;

use self::facts::Origin;
use super::{Figure, change::GoChange};
use crate::{runtime::go::CPU_CLASSES, signals::go::looks::Doing};

/// CPU time of the runtime between two readings, by its own account.
pub struct Cpu {
    /// Cores that the GC used: dedicated workers, assists, pauses. Idle workers use what nobody else wants.
    pub gc: f64,
    /// Of them, assists.
    pub assists: f64,
    /// The GC's part of all CPU time that was used.
    pub share: f64,
    /// Cores and part with the idle workers: a GC that runs all the time keeps cores busy that could sleep, and uses up a quota.
    pub with_idle: f64,
    pub share_with_idle: f64,
    /// Cycles per second.
    pub cycles: f64,
}

/// Cycles that the account must cover: it is made up at the end of each.
const CYCLES: u64 = 5;

impl Cpu {
    /// None where there were too few GC cycles to say; an error where the version keeps no account.
    pub fn of(go: &GoChange<'_>) -> Result<Option<Self>, String> {
        let (Some(first), Some(now)) = (go.first.cpu, go.now.cpu) else {
            return Err("the runtime accounts for its CPU time since go1.20".to_owned());
        };
        if go.more(|go| go.cycles) < CYCLES {
            return Ok(None);
        }
        let spent = |class: &str| {
            let mut classes = CPU_CLASSES.iter().zip(first.iter().zip(now));
            let found = classes.find(|((_, name), _)| *name == class);
            found.map_or(0, |(_, (first, now))| now.saturating_sub(*first)) as f64
        };
        let all: f64 = CPU_CLASSES.iter().map(|(_, class)| spent(class)).sum();
        let used = all - spent("idle");
        if used <= 0.0 {
            return Ok(None);
        }
        let assists = spent("gc/mark/assist");
        let gc = spent("gc/mark/dedicated") + assists + spent("gc/pause");
        let with_idle = gc + spent("gc/mark/idle");
        // The account is of all Ps.
        let seconds = all / go.now.gomaxprocs.max(1) as f64;
        Ok(Some(Self {
            gc: gc / seconds,
            assists: assists / seconds,
            share: gc / used,
            with_idle: with_idle / seconds,
            share_with_idle: with_idle / used,
            cycles: go.rate(|go| go.cycles),
        }))
    }
}

/// Goroutines that did any of this at the walks between two readings, summed over walks, by start function.
pub fn by_function(go: &GoChange<'_>, what: &[Doing]) -> BTreeMap<String, u64> {
    let sum = |origin: &Origin| what.iter().map(|doing| origin.doing[*doing as usize]).sum::<u64>();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for origin in &go.now.origins {
        let before = go.first.origins.iter().find(|before| before.is_same(origin));
        let more = sum(origin).saturating_sub(before.map_or(0, sum));
        *sums.entry(origin.function.clone()).or_default() += more;
    }
    sums
}

/// The largest part of a sum by name, and the whole, that grew between two readings.
pub fn largest<'a>(now: &'a BTreeMap<String, u64>, first: &BTreeMap<String, u64>) -> (Option<(&'a str, u64)>, u64) {
    let more =
        |(name, now): (&'a String, &u64)| (name.as_str(), now.saturating_sub(first.get(name).copied().unwrap_or(0)));
    let whole = now.iter().map(more).map(|(_, more)| more).sum();
    let largest = now.iter().map(more).max_by_key(|(_, more)| *more);
    (largest.filter(|(_, more)| *more > 0), whole)
}

/// The evidence of what the GC takes.
pub fn evidence(cpu: Option<&Cpu>) -> Vec<Figure> {
    let Some(cpu) = cpu else { return Vec::new() };
    vec![
        Figure::new("GC", cpu.gc, "cores"),
        Figure::new("GC with idle workers", cpu.with_idle, "cores"),
        Figure::new("GC's part of used CPU", 100.0 * cpu.share, "%"),
        Figure::new("GC cycles", cpu.cycles, "per s"),
    ]
}
