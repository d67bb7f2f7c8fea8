//! The state of one plane at one target: whether it counts, what it may cost, what its windows saw.

use std::sync::Arc;

use agent_common::hits::{Hits, Probe as Kind};

use crate::{
    attach::{plan::Probe, uprobe::Links},
    budget::{Ledger, Plane, Weigher, weigh::Interval},
    model::MonoNs,
    overhead::cost::Part,
};

/// Hits that a window may have before anything is known of what they cost and what there is to spend.
const FIRST: u64 = 10_000;

/// Where a plane stands at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The target has nothing of it.
    None,
    Closed,
    /// Attaching or detaching.
    Busy,
    Open {
        since: MonoNs,
    },
}

impl Window {
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Whether it is open, or about to be or was a moment ago.
    pub fn is_wanted(self) -> bool {
        matches!(self, Self::Open { .. } | Self::Busy)
    }
}

/// A plane that is on while its window is open.
pub struct PlaneState {
    pub window: Window,
    /// The probes of plane 2; none of plane 1, whose hooks are everybody's.
    pub probes: Arc<[Probe]>,
    pub links: Links,
    /// None without a budget: the window stays open.
    pub ledger: Option<Ledger>,
    pub weigher: Weigher,
    /// Whether the window was ever closed: figures are then weighed.
    pub weighed: bool,
    /// A window was closed, and what it saw is still in the kernel's maps.
    pub unsettled: bool,
    /// Since when a window that is paid for waits for the other plane's.
    pub waits: Option<MonoNs>,
    /// The process whose budget has no room for this window; None while its own decides.
    pub refused: Option<u32>,
    /// Until when figures are settled.
    pub settled: MonoNs,
    /// Cost of one of late, ns; 0 before the first.
    each: f64,
    /// Windows that the kernel side ended by itself, as their allowance was used up.
    pub cuts: u64,
}

/// What keeps a plane's windows from being more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// What the budget pays for.
    Budget,
    /// Even the shortest window costs more than what it pays for in 5 s.
    Shortest,
    /// More would lengthen the 99th percentile of latency.
    Tail,
    /// Another process, by its pid, pays for calling the hooks of these windows.
    Neighbour(u32),
}

impl PlaneState {
    /// One whose window was not opened yet.
    pub fn new(plane: Plane, probes: Arc<[Probe]>, ledger: Option<Ledger>, now: MonoNs) -> Self {
        let idle = plane == Plane::Probes && probes.is_empty();
        Self {
            window: if idle { Window::None } else { Window::Closed },
            probes,
            links: Links::default(),
            ledger,
            weigher: Weigher::new(plane),
            weighed: false,
            unsettled: false,
            waits: None,
            refused: None,
            settled: now,
            each: 0.0,
            cuts: 0,
        }
    }

    /// Takes note of hits since the last turn.
    pub fn note(&mut self, part: Part) {
        if part.hits > 0 {
            self.each = part.cost / part.hits as f64;
        }
    }

    /// What hits in windows may rise to, on all CPUs together, where `used` is what they are now: what there is to spend pays for no
    /// more.
    pub fn allowance(&self, used: u64) -> u64 {
        let more = match &self.ledger {
            None => u64::MAX,
            Some(_) if self.each == 0.0 => FIRST,
            Some(ledger) => (ledger.left().max(0.0) / self.each) as u64,
        };
        used.saturating_add(more)
    }

    /// What keeps windows from being more, of late.
    pub fn bound(&self) -> Bound {
        match (&self.ledger, self.refused) {
            (Some(ledger), _) if ledger.is_starved() => Bound::Shortest,
            (Some(ledger), _) if ledger.is_held() => Bound::Tail,
            (_, Some(pid)) => Bound::Neighbour(pid),
            _ => Bound::Budget,
        }
    }

    /// Share of the time until `now` that windows covered.
    pub fn coverage(&self, now: MonoNs) -> f64 {
        let (covered, elapsed) = self.times(now);
        if self.weighed && elapsed > 0.0 {
            covered / elapsed
        } else {
            1.0
        }
    }

    /// Time that windows covered until `now`, and time, ns.
    pub fn times(&self, now: MonoNs) -> (f64, f64) {
        let (covered, elapsed) = self.weigher.times();
        let open = match self.window {
            Window::Open { since } => now.0.saturating_sub(since.0.max(self.settled.0)),
            _ => 0,
        };
        (
            covered + open as f64,
            elapsed + now.0.saturating_sub(self.settled.0) as f64,
        )
    }

    /// The figures of a window that was opened at `since` and counted until `until` are settled: what they stand for.
    pub fn settle(&mut self, since: MonoNs, until: MonoNs, now: MonoNs, closed: bool) -> Interval {
        let settled = std::mem::replace(&mut self.settled, now);
        Interval {
            elapsed: now.0.saturating_sub(settled.0) as f64,
            open: until.0.saturating_sub(since.0.max(settled.0)) as f64,
            bounded: closed && since.0 >= settled.0,
        }
    }
}

/// What a target has cost since it was attached. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct Overhead {
    /// The last turn, and the CPU time then.
    pub turned: MonoNs,
    pub clock: u64,
    pub hits: Hits,
    /// By kind of probe.
    pub by_kind: [f64; Kind::COUNT],
    /// The target's CPU time meanwhile, that cost included.
    pub cpu: f64,
}

impl Default for Overhead {
    /// Nothing. Not derived: the standard library has no default of arrays this long.
    fn default() -> Self {
        Self {
            turned: MonoNs::default(),
            clock: 0,
            hits: [0; Kind::COUNT],
            by_kind: [0.0; Kind::COUNT],
            cpu: 0.0,
        }
    }
}

impl Overhead {
    /// Cost as a share of one core's time since `since`.
    pub fn of_a_core(&self, since: MonoNs) -> f64 {
        let cost: f64 = self.by_kind.iter().sum();
        cost / (self.turned.0.saturating_sub(since.0) as f64).max(1.0)
    }

    /// Cost as a share of the CPU time that the target would have used without it; None while that is nothing.
    pub fn share(&self) -> Option<f64> {
        let cost: f64 = self.by_kind.iter().sum();
        let own = self.cpu - cost;
        (own > 0.0).then(|| cost / own)
    }
}
