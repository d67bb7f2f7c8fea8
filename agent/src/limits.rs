//! What the agent may use for itself, and what it gives up when that is not enough. The decision is pure; `measure` and the
//! pipeline act.

use std::path::{Path, PathBuf};

use procfs::{FromRead as _, ProcessCGroups};

use crate::cgroup;

/// Length of a period that is judged, s.
pub const PERIOD: f64 = 10.0;
/// Use below these shares of the limits, for [`QUIET`] periods on end, gives something back: of what was over its limit, and of what was
/// not, which need not fall for it.
const LOW: f64 = 0.6;
const BELOW: f64 = 0.9;
const QUIET: u32 = 3;
/// The part of a cgroup's limits that is used: what is over them is throttled, or killed.
const OF_CGROUP: f64 = 0.9;

/// Parts of the CPU limit that looks at targets may take, at least and at most.
const FEW_LOOKS: f64 = 0.02;
const MOST_LOOKS: f64 = 0.4;

/// Limits of the agent's own use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Cores; None for no limit.
    pub cpu: Option<f64>,
    /// Bytes of resident set; None for no limit.
    pub memory: Option<u64>,
}

/// What was used in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// Cores.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
}

/// What is given up, each with all before it: the order is from what is told in detail to what is told at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shed {
    #[default]
    Nothing,
    /// A tenth of the spans.
    Spans,
    /// A quarter of the budget: windows are rarer.
    Windows,
    /// No windows, no new targets. What is left are the runtimes' own figures and GC cycles.
    Targets,
}

impl Shed {
    const ALL: [Self; 4] = [Self::Nothing, Self::Spans, Self::Windows, Self::Targets];

    /// Most spans a second, of what was asked for.
    pub fn spans(self, asked: usize) -> usize {
        if self >= Self::Spans { asked.div_ceil(10) } else { asked }
    }

    /// The part of the budget that may be used.
    pub fn budget(self) -> f64 {
        match self {
            Self::Nothing | Self::Spans => 1.0,
            Self::Windows => 0.25,
            Self::Targets => 0.0,
        }
    }

    /// What people are told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nothing => "nothing is given up",
            Self::Spans => "spans are limited to a tenth of --max-spans",
            Self::Windows => "spans are limited to a tenth and the budget to a quarter: windows are rarer",
            Self::Targets => "no windows and no new processes; only runtimes' own figures and GC cycles continue",
        }
    }
}

/// Decides what is given up.
#[derive(Clone, Debug)]
pub struct Keeper {
    pub limits: Limits,
    pub shed: Shed,
    /// What of CPU and memory was over its limit since nothing was given up.
    over: [bool; 2],
    quiet: u32,
}

/// What looks at targets may take, cores, where all else takes `others`: they yield to it, and a few are always made. Without a limit, that
/// of one core.
pub fn for_looks(limit: Option<f64>, others: f64) -> f64 {
    let limit = limit.unwrap_or(1.0);
    (BELOW * limit - others).clamp(FEW_LOOKS * limit, MOST_LOOKS * limit)
}

impl Keeper {
    /// Nothing is given up yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            shed: Shed::Nothing,
            over: [false; 2],
            quiet: 0,
        }
    }

    /// What looks may take. While anything is given up they take the least: what is given back is what all else leaves.
    pub fn for_looks(&self, others: f64) -> f64 {
        match self.shed {
            Shed::Nothing => for_looks(self.limits.cpu, others),
            _ => for_looks(self.limits.cpu, f64::INFINITY),
        }
    }

    /// Judges a period; true when something else is given up from now on.
    pub fn judge(&mut self, of: Use) -> bool {
        let share = |used: f64, limit: Option<f64>| limit.map_or(0.0, |limit| used / limit);
        let shares = [
            share(of.cpu, self.limits.cpu),
            share(of.memory as f64, self.limits.memory.map(|limit| limit as f64)),
        ];
        if self.shed == Shed::Nothing {
            self.over = [false; 2];
        }
        let is_over = shares.map(|share| share > 1.0);
        self.over = [self.over[0] || is_over[0], self.over[1] || is_over[1]];
        let mut both = shares.iter().zip(self.over);
        let is_quiet = both.all(|(share, over)| *share < if over { LOW } else { BELOW });
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        let at = self.shed as usize;
        let next = if is_over.contains(&true) {
            (at + 1).min(Shed::ALL.len() - 1)
        } else if self.quiet >= QUIET {
            self.quiet = 0;
            at.saturating_sub(1)
        } else {
            at
        };
        self.shed = Shed::ALL[next];
        next != at
    }
}

impl Limits {
    /// These, or what the agent's cgroup leaves of them.
    pub fn within(self, cgroup: Self) -> Self {
        let less = |own: Option<f64>, of: Option<f64>| match (own, of) {
            (Some(own), Some(of)) => Some(own.min(of * OF_CGROUP)),
            (own, of) => own.or(of.map(|of| of * OF_CGROUP)),
        };
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        Self {
            cpu: less(self.cpu, cgroup.cpu),
            memory: less(bytes(self.memory), bytes(cgroup.memory)).map(|bytes| bytes as u64),
        }
    }

    /// The limits of the cgroup that the agent runs in; those that it does not have, or does not show, are none.
    pub fn of_cgroup() -> Self {
        let cgroups = ProcessCGroups::from_file("/proc/self/cgroup").unwrap_or(ProcessCGroups(Vec::new()));
        let read = |controller: &str, file: &str| {
            let folder = folder(&cgroups, controller)?;
            std::fs::read_to_string(folder.join(file)).ok()
        };
        let number = |text: String| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
        let quota = |controller, read: fn(&Path) -> Option<f64>| read(&folder(&cgroups, controller)?);
        let cpu = quota("", cgroup::unified).or_else(|| quota("cpu", cgroup::version_1));
        let bytes = read("", "memory.max").and_then(number);
        let bytes = bytes.or_else(|| read("memory", "memory.limit_in_bytes").and_then(number));
        Self {
            cpu,
            // Version 1 writes "none" as all the memory there could be.
            memory: bytes.filter(|bytes| *bytes < 1e15).map(|bytes| bytes as u64),
        }
    }
}

/// Where a controller's files of the agent's own cgroup are. A path that is not there is another namespace's: the root is then
/// our own.
fn folder(cgroups: &ProcessCGroups, controller: &str) -> Option<PathBuf> {
    let (root, path) = cgroup::place(cgroups, controller)?;
    let own = root.join(path.trim_start_matches('/'));
    Some(if own.is_dir() { own } else { root })
}

/// CPU time so far, ns, and resident set, bytes, of the agent itself.
pub fn measure() -> Option<(u64, u64)> {
    let own = procfs::process::Process::myself().ok()?;
    let stat = own.stat().ok()?;
    let ticks = stat.utime + stat.stime;
    Some((
        ticks * 1_000_000_000 / procfs::ticks_per_second().max(1),
        stat.rss * procfs::page_size(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        cpu: Some(0.05),
        memory: Some(64 << 20),
    };

    fn check(uses: &[(f64, u64)], expected: &[Shed]) {
        let mut keeper = Keeper::new(LIMITS);
        let found: Vec<Shed> = uses
            .iter()
            .map(|(cpu, megabytes)| {
                keeper.judge(Use {
                    cpu: *cpu,
                    memory: megabytes << 20,
                });
                keeper.shed
            })
            .collect();
        assert_eq!(found, expected, "{uses:?}");
    }

    #[test]
    fn more_is_given_up_while_it_is_too_much_and_given_back_when_it_is_quiet() {
        use Shed::{Nothing, Spans, Targets, Windows};
        check(&[(0.04, 20); 4], &[Nothing; 4]);
        check(&[(0.06, 20), (0.06, 20), (0.04, 20)], &[Spans, Windows, Windows]);
        check(&[(0.01, 65); 5], &[Spans, Windows, Targets, Targets, Targets]);
        let back = [(0.06, 20), (0.02, 20), (0.02, 20), (0.02, 20), (0.02, 20)];
        check(&back, &[Spans, Spans, Spans, Nothing, Nothing]);
        // Between the two nothing moves: no oscillation.
        let between = [(0.06, 20), (0.02, 20), (0.02, 20), (0.04, 20), (0.02, 20)];
        check(&between, &[Spans; 5]);
        // What a service holds of the agent's memory need not fall for what its CPU was given up for; what was given up for memory waits.
        let resident = [(0.06, 50), (0.02, 50), (0.02, 50), (0.02, 50), (0.02, 60)];
        check(&resident, &[Spans, Spans, Spans, Nothing, Nothing]);
        let high = [(0.06, 60), (0.02, 60), (0.02, 60), (0.02, 60), (0.02, 60)];
        check(&high, &[Spans; 5]);
        let both = [(0.06, 65), (0.02, 50), (0.02, 50), (0.02, 50), (0.02, 50)];
        check(&both, &[Spans; 5]);
    }

    #[test]
    fn looks_take_what_is_left_of_the_limit() {
        for (limit, others, expected) in [
            (Some(0.05), 0.0, 0.02),
            (Some(0.05), 0.03, 0.015),
            (Some(0.05), 0.2, 0.001),
            (None, 0.0, 0.4),
        ] {
            let found = for_looks(limit, others);
            assert!((found - expected).abs() < 1e-9, "{limit:?} {others}: {found}");
        }
        let mut keeper = Keeper::new(LIMITS);
        keeper.judge(Use { cpu: 0.06, memory: 0 });
        assert!((keeper.for_looks(0.01) - 0.001).abs() < 1e-9);
    }

    #[test]
    fn a_cgroup_s_limits_are_respected() {
        let cgroup = |cpu: Option<f64>, memory: Option<u64>| Limits { cpu, memory };
        for (given, of, expected) in [
            (LIMITS, cgroup(None, None), LIMITS),
            (LIMITS, cgroup(Some(1.0), Some(1 << 30)), LIMITS),
            (
                LIMITS,
                cgroup(Some(0.04), None),
                cgroup(Some(0.04 * OF_CGROUP), LIMITS.memory),
            ),
            (cgroup(None, None), cgroup(None, Some(1000)), cgroup(None, Some(900))),
        ] {
            assert_eq!(given.within(of), expected, "{of:?}");
        }
    }
}
