//! The state of one plane of one target: whether its window is open, what it may cost, and how much of the time windows covered.

use std::sync::Arc;

use crate::{
    attach::{plan::Probe, uprobe::Links},
    budget::{Extrapolator, Interval, Ledger, Plane, Work},
    clock,
    model::MonoNs,
    overhead::cost::Part,
};

/// Hits that the first window may have, before the cost of a hit is known.
const FIRST_ALLOWANCE: u64 = 10_000;

/// The window of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The target has no probes of this plane, or ended.
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

    /// Whether it is open, or changes: it is about to open or was open a moment ago.
    pub fn is_open_or_changing(self) -> bool {
        matches!(self, Self::Open { .. } | Self::Busy)
    }
}

/// An interval whose counts are in the kernel's maps and are not extrapolated yet: it ended with a window, or with a part of one that stays
/// open. A reading of the maps that is taken later completes it.
#[derive(Clone, Copy, Debug)]
pub struct PendingInterval {
    pub target_id: u32,
    pub plane: Plane,
    pub interval: Interval,
}

/// The kernel programs ended a window.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub at: MonoNs,
    /// The part that they counted of all hits since the window was opened.
    pub counted: f64,
}

/// Hits of one plane so far: those that count in windows, and all.
#[derive(Clone, Copy, Debug, Default)]
pub struct HitsSoFar {
    pub counted: u64,
    pub all: u64,
}

/// A plane that counts while its window is open.
pub struct PlaneState {
    plane: Plane,
    pub window: Window,
    /// The probes of planes 2 and 2s. The others have none here: all targets share the hooks.
    pub probes: Arc<[Probe]>,
    pub links: Links,
    /// None without a budget: the window stays open.
    pub ledger: Option<Ledger>,
    pub extrapolator: Extrapolator,
    /// Whether the window was ever closed: figures are then extrapolated.
    pub extrapolated: bool,
    /// A window was closed and its counts are not extrapolated yet: see [`PendingInterval`].
    pub is_pending: bool,
    /// Since when a window that the budget pays for waits for a window of the other plane.
    pub waiting_since: Option<MonoNs>,
    /// The process whose budget does not pay for this window; None while the target's own budget decides.
    pub blocked_by: Option<u32>,
    /// Begin of the current interval: everything before is extrapolated, or pending.
    pub interval_start: MonoNs,
    /// The target's work when the current interval began, and when its window was opened.
    interval_work: Work,
    window_work: Work,
    /// Hits when its window was opened.
    window_hits: HitsSoFar,
    /// Whether there was a window.
    was_opened: bool,
    /// Attempts to attach probes of the sample since all could be.
    pub attempts: u32,
    /// When the target ended.
    ended: Option<MonoNs>,
    /// Recent cost of one hit, ns; 0 before the first.
    cost_per_hit: f64,
    /// Windows that the kernel programs ended, because their allowance was used up.
    pub cuts: u64,
}

/// What limits the windows of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The target's budget.
    Budget,
    /// Even the shortest window costs more than the budget of 5 s.
    Shortest,
    /// More windows would lengthen the 99th percentile of latency.
    Tail,
    /// The budget of another process, by its pid: its threads run the hooks of these windows too.
    Neighbour(u32),
}

impl PlaneState {
    /// A plane whose window was not opened yet.
    pub fn new(plane: Plane, probes: Arc<[Probe]>, ledger: Option<Ledger>, now: MonoNs) -> Self {
        let idle = plane.is_probed() && probes.is_empty();
        Self {
            plane,
            window: if idle { Window::None } else { Window::Closed },
            probes,
            links: Links::default(),
            ledger,
            extrapolator: Extrapolator::new(plane),
            extrapolated: false,
            is_pending: false,
            waiting_since: None,
            blocked_by: None,
            interval_start: now,
            interval_work: Work::default(),
            window_work: Work::default(),
            window_hits: HitsSoFar::default(),
            was_opened: false,
            attempts: 0,
            ended: None,
            cost_per_hit: 0.0,
            cuts: 0,
        }
    }

    /// Adds the hits since the last turn.
    pub fn add_hits(&mut self, part: Part) {
        if part.hits > 0 {
            self.cost_per_hit = part.cost / part.hits as f64;
        }
    }

    /// How many hits windows may have, on all CPUs together and with the `used` ones until now: what is left of the budget pays for no more.
    pub fn allowance(&self, used: u64) -> u64 {
        let more = match &self.ledger {
            None => u64::MAX,
            Some(_) if self.cost_per_hit == 0.0 => FIRST_ALLOWANCE,
            Some(ledger) => (ledger.left().max(0.0) / self.cost_per_hit) as u64,
        };
        used.saturating_add(more)
    }

    /// What limits windows at present.
    pub fn bound(&self) -> Bound {
        match (&self.ledger, self.blocked_by) {
            (Some(ledger), _) if ledger.is_starved() => Bound::Shortest,
            (Some(ledger), _) if ledger.is_held() => Bound::Tail,
            (_, Some(pid)) => Bound::Neighbour(pid),
            _ => Bound::Budget,
        }
    }

    /// Share of the time until `now` in which a window was open.
    pub fn coverage(&self, now: MonoNs) -> f64 {
        let (covered, elapsed) = self.times(now);
        if self.extrapolated && elapsed > 0.0 {
            covered / elapsed
        } else {
            1.0
        }
    }

    /// Whether its figures, at the last reading, do not have all of a load that has risen since its last window.
    pub fn is_outdated(&self) -> bool {
        self.extrapolated && self.extrapolator.is_outdated()
    }

    /// How long ago the last window closed, ns; 0 while one is open.
    pub fn unseen(&self, now: MonoNs) -> u64 {
        if self.window.is_open() {
            0
        } else {
            now.0.saturating_sub(self.interval_start.0)
        }
    }

    /// What the target did in the current interval, of its `work` until `now`, and the time of that, ns.
    pub fn since_interval(&self, work: Work, now: MonoNs) -> (Work, f64) {
        let now = self.ended.map_or(now, |ended| MonoNs(ended.0.min(now.0)));
        let elapsed = now.0.saturating_sub(self.interval_start.0);
        (work.since(self.interval_work), elapsed as f64)
    }

    /// For how long windows were open until `now`, or until the target ended, and the time itself, ns.
    pub fn times(&self, now: MonoNs) -> (f64, f64) {
        let now = self.ended.map_or(now, |ended| MonoNs(ended.0.min(now.0)));
        let (covered, elapsed) = self.extrapolator.times();
        let open = match self.window {
            Window::Open { since } => now.0.saturating_sub(since.0.max(self.interval_start.0)),
            _ => 0,
        };
        (
            covered + open as f64,
            elapsed + now.0.saturating_sub(self.interval_start.0) as f64,
        )
    }

    /// Whether the window is open and was opened less than `age` ns ago.
    pub(super) fn is_young(&self, now: MonoNs, age: u64) -> bool {
        matches!(self.window, Window::Open { since } if now.0.saturating_sub(since.0) < age)
    }

    /// The window closes, or was ended at `cut` by the kernel programs; `work` is what the target did so far. What becomes of [`Self::window`] is
    /// the caller's decision.
    pub(super) fn close_window(&mut self, target_id: u32, cut: Option<Cut>, work: Work) -> Option<PendingInterval> {
        let Window::Open { since } = self.window else {
            return None;
        };
        self.extrapolated = true;
        self.is_pending = true;
        self.cuts += u64::from(cut.is_some());
        let now = clock::now();
        Some(PendingInterval {
            target_id,
            plane: self.plane,
            interval: self.end_interval((since, cut), now, work, true),
        })
    }

    /// Ends the interval of a window that has been open for `age` ns and stays open, if its counts are extrapolated.
    pub(super) fn end_long_interval(
        &mut self,
        target_id: u32,
        now: MonoNs,
        age: u64,
        work: Work,
    ) -> Option<PendingInterval> {
        let Window::Open { since } = self.window else {
            return None;
        };
        (self.extrapolated && now.0.saturating_sub(since.0) >= age).then(|| PendingInterval {
            target_id,
            plane: self.plane,
            interval: self.end_interval((since, None), now, work, false),
        })
    }

    /// The target ended at `now`; `cut` is when the kernel programs ended its window before.
    pub(super) fn end(&mut self, target_id: u32, cut: Option<Cut>, now: MonoNs, work: Work) -> Option<PendingInterval> {
        // If windows were always open, figures are the kernel's own counts.
        let pending = match self.window {
            Window::Open { since } if self.extrapolated => Some(PendingInterval {
                target_id,
                plane: self.plane,
                interval: self.end_interval((since, cut), now, work, false),
            }),
            _ => None,
        };
        self.window = Window::None;
        self.ended = Some(now);
        pending
    }

    /// The kernel programs ended the window at `at`; `hits` are those of the plane so far.
    pub(super) fn cut(&self, at: MonoNs, hits: HitsSoFar) -> Cut {
        let all = hits.all.saturating_sub(self.window_hits.all).max(1);
        let counted = hits.counted.saturating_sub(self.window_hits.counted);
        Cut {
            at,
            counted: (counted as f64 / all as f64).min(1.0),
        }
    }

    /// The window is open since `now`; `work` is what the target did so far, and `hits` those of the plane.
    pub(super) fn open_window(&mut self, is_first: bool, now: MonoNs, work: Work, hits: HitsSoFar) {
        if is_first {
            // Figures are not extrapolated to the time before the first window.
            self.interval_start = now;
            self.interval_work = work;
        }
        self.window_work = work;
        self.window_hits = hits;
        self.was_opened = true;
        self.window = Window::Open { since: now };
    }

    /// Whether there was a window.
    pub(super) fn was_opened(&self) -> bool {
        self.was_opened
    }

    /// Whether there was one, or there is nothing to open it for.
    pub(super) fn is_complete(&self) -> bool {
        self.was_opened || self.window == Window::None
    }

    /// The window is closed.
    pub(super) fn closed(&mut self) {
        self.window = Window::Closed;
        if let Some(ledger) = &mut self.ledger {
            ledger.closed();
        }
    }

    /// Ends the current interval at `now`, in which a window was open from `since` until then, or until the kernel programs ended it; `work` is what the
    /// target did so far. `closed` is whether it is closed now.
    fn end_interval(&mut self, (since, cut): (MonoNs, Option<Cut>), now: MonoNs, work: Work, closed: bool) -> Interval {
        let start = std::mem::replace(&mut self.interval_start, now);
        let before = std::mem::replace(&mut self.interval_work, work);
        let opened = since.0 >= start.0;
        let since = since.0.max(start.0);
        let until = cut.map_or(now, |cut| cut.at);
        let open = until.0.saturating_sub(since) as f64;
        let in_window = work.since(if opened { self.window_work } else { before });
        // Of a window that the programs ended, the part of what was done until now. A burst of starts ends a window of probes at once, so that the little
        // time says nothing about them, but hits do.
        let of_time = open / (now.0.saturating_sub(since) as f64).max(1.0);
        let of_starts = cut
            .filter(|_| self.plane.is_probed())
            .map_or(of_time, |cut| cut.counted);
        let by_time = in_window.part(of_time.min(1.0));
        Interval {
            elapsed: now.0.saturating_sub(start.0) as f64,
            work: work.since(before),
            open,
            open_work: Work {
                starts: in_window.part(of_starts.min(1.0)).starts,
                ..by_time
            },
            bounded: closed && opened,
        }
    }
}

#[cfg(test)]
mod tests;
