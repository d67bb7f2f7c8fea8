//! Decides when windows open and close: an account of what a plane may cost a target and has cost it. Pure: facts in, a decision out.

use std::{collections::VecDeque, time::Duration};

use super::{Limits, tail};

/// In no interval of this length may a plane cost more than its limits allow, ns.
pub const SPAN: f64 = 5e9;
/// The share of what [`SPAN`] allows that is planned with: the rest is a reserve for cost that is seen late.
const PLANNED: f64 = 0.9;
/// The share of its limits that a plane keeps, whatever else is paid from them: enough for a window now and then.
const LEAST: f64 = 0.05;
/// Time constant of the average of a target's CPU use, s.
const FADE: f64 = 5.0;
/// Length of an entry of the recent past, ns.
const ENTRY: f64 = 100e6;
/// Shortest time of a window, from the first attached probe to the next run of the governor, and the time of detaching in addition, ns.
const GLIMPSE: f64 = 20e6;
const DETACH: f64 = 20e6;
/// A target for which even the shortest window is too expensive is tried again after this time, ns: its load may have changed.
const AGAIN: f64 = 60e9;
/// Where windows must be rare, there is one about this often, ns, if it can be long enough; and one every [`AGAIN`] in any case.
const RARE: f64 = 10e9;
/// Largest ratio of a window's cost to the target's own CPU time.
const SLOWEST: f64 = 100.0;

/// What happened since the last decision. Times in ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    pub elapsed: f64,
    /// CPU time of the target without what whywait cost it.
    pub own: f64,
    /// Cost that comes out of the same limits before this plane's.
    pub before: f64,
    /// Cost of this plane.
    pub windows: f64,
    /// The share of its limits that the host's limit leaves to a target, 1 for all.
    pub scale: f64,
    /// Utilisation of the cores that the target may use, 1 for all of their time.
    pub busy: f64,
    /// Share of the target's requests that this plane's windows may move over its 99th percentile of latency.
    pub tail: f64,
    /// The share of the time that windows may take because of it, where that is measured; `busy` and `tail` do not matter then.
    pub measured: Option<f64>,
}

/// State of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Closed,
    /// Attaching or detaching.
    Busy,
    /// Open since this time.
    Open(Duration),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Stay,
    Open,
    Close,
}

/// One window, with attaching and detaching; ns.
#[derive(Clone, Copy, Debug, Default)]
struct Running {
    cost: f64,
    time: f64,
    /// The target's own CPU time meanwhile.
    own: f64,
    /// Cost and time between attaching and detaching only.
    open: (f64, f64),
}

impl Running {
    /// Cost while it was open, for each ns of the target's own CPU time; computed from `load` where the kernel's clock shows none. At
    /// most [`SLOWEST`].
    fn slower(self, load: f64) -> f64 {
        let own = (self.own / self.time.max(1.0)).max(load / 10.0);
        let (cost, time) = self.open;
        if cost > 0.0 {
            (cost / time / own).min(SLOWEST)
        } else {
            0.0
        }
    }
}

/// One plane's account at one target.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Limits,
    /// A window is not closed before this, unless what [`SPAN`] allows is spent.
    shortest: Duration,
    /// What may be spent, ns; below 0 when too much was spent.
    credit: f64,
    /// Cost that must be paid before this plane's and was not paid from the income yet, ns.
    owed: f64,
    recent: Recent,
    /// Cost of an open window, ns for each ns.
    price: f64,
    /// Since the current window was requested.
    running: Running,
    /// The last whole window, and how long ago it was, ns.
    last: Option<Running>,
    rested: f64,
    /// Cost in windows, for each ns of the target's own CPU time, of the last few.
    slower: f64,
    /// Share of the time that windows may take, because of the tail latency.
    rare: f64,
    /// Whether the next window waits for that, and not for credit.
    held: bool,
    /// For how long the next window has been too expensive, ns; 0 while it is not.
    starved: f64,
    /// The target's recent CPU use, cores, and since when it is known, s.
    load: f64,
    known: f64,
    /// Cost by the count of hits that the CPU clock has not shown yet, ns; at most 0.
    late: f64,
    /// The credit that the next window needs, in windows: random, so that windows are not in step with the load.
    patience: f64,
    random: fastrand::Rng,
}

impl Ledger {
    /// An account without credit; `seed` makes the windows of targets differ.
    pub fn new(limits: Limits, shortest: Duration, seed: u64) -> Self {
        Self {
            limits,
            shortest,
            credit: 0.0,
            owed: 0.0,
            recent: Recent::default(),
            price: 0.0,
            running: Running::default(),
            last: None,
            rested: 0.0,
            slower: 0.0,
            rare: 1.0,
            held: false,
            starved: 0.0,
            load: 0.0,
            known: 0.0,
            late: 0.0,
            patience: 1.0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// From now on it may cost what these allow.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds `facts` to the account and decides.
    pub fn turn(&mut self, facts: Facts, phase: Phase) -> Decision {
        if facts.elapsed <= 0.0 {
            return Decision::Stay;
        }
        let own = facts.own + self.late;
        self.late = own.min(0.0);
        let own = own.max(0.0);
        self.known = (self.known + facts.elapsed / 1e9).min(FADE);
        let weight = facts.elapsed / 1e9 / self.known;
        self.load += (own / facts.elapsed - self.load) * weight;
        let whole = facts.scale * self.limits.income(own, facts.elapsed);
        // What others' windows cost is paid back little by little.
        self.owed += facts.before;
        let paid = self.owed.min(whole * (1.0 - LEAST));
        self.owed = (self.owed - paid).min(whole / facts.elapsed * SPAN);
        let income = whole - paid;
        self.credit += income - facts.windows;
        self.recent.note(facts.elapsed, income, facts.windows);
        self.running.cost += facts.windows;
        self.running.time += facts.elapsed;
        self.running.own += own;
        // Credit is limited: a burst of load must not meet windows that were saved up over hours.
        let most = (2.0 * self.expected()).max(income / facts.elapsed * 1e9);
        self.credit = self.credit.min(most);
        // A window that the income pays for all the time is not closed because of the tail either.
        let whole = self.slower * self.load * facts.elapsed <= income;
        self.rare = if whole {
            1.0
        } else {
            let model = || tail::share(facts.tail, facts.busy, self.slower);
            facts.measured.unwrap_or_else(model)
        };
        match phase {
            Phase::Closed => self.closed_turn(facts.elapsed),
            Phase::Open(time) => {
                self.running.open.0 += facts.windows;
                self.running.open.1 += facts.elapsed;
                let price = facts.windows / facts.elapsed;
                self.price += (price - self.price) / 2.0;
                // The cost until it is detached. Between decisions the kernel programs end it, by the number of hits that are left.
                let spent_up = self.left() <= self.price.max(price) * DETACH;
                let rare = self.rare < 1.0 && time.as_nanos() as f64 >= self.rare * RARE;
                // Where the limit of these 5 s has no room for another window, the rest of it is this one's: the account is balanced later.
                let used = self.credit <= 0.0 && self.glimpse() <= self.left();
                let enough = (used || rare) && time >= self.shortest;
                if self.price > 0.0 && (spent_up || enough) {
                    Decision::Close
                } else {
                    Decision::Stay
                }
            }
            Phase::Busy => Decision::Stay,
        }
    }

    fn closed_turn(&mut self, elapsed: f64) -> Decision {
        self.rested += elapsed;
        if self.credit < self.patience * self.expected() {
            self.held = false;
            return Decision::Stay;
        }
        self.held = self.rested < self.rest();
        if self.held {
            return Decision::Stay;
        }
        if self.glimpse() > self.left() {
            self.starved += elapsed;
            if self.starved < AGAIN {
                return Decision::Stay;
            }
        }
        self.starved = 0.0;
        self.running = Running::default();
        Decision::Open
    }

    /// A window is over, detaching included.
    pub fn closed(&mut self) {
        let slower = self.running.slower(self.load);
        self.slower += (slower - self.slower) / if self.last.is_some() { 3.0 } else { 1.0 };
        self.last = Some(self.running);
        self.rested = 0.0;
        self.patience = 0.5 + self.random.f64();
    }

    /// Time after the last window in which none is opened, because of the tail latency, ns.
    fn rest(&self) -> f64 {
        let rest = self.last.map_or(0.0, |last| last.time * (1.0 / self.rare - 1.0));
        (self.patience * rest).min(AGAIN)
    }

    /// Whether windows are rarer than the budget pays for, because of the 99th percentile of latency.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Recent CPU use of the target, cores.
    pub fn load(&self) -> f64 {
        self.load
    }

    /// What a window that was never closed would cost at the current load, cores; 0 before one was closed.
    pub fn full(&self) -> f64 {
        self.slower * self.load
    }

    /// What windows cost recently, cores.
    pub fn recent(&self) -> f64 {
        let Entry { time, cost, .. } = self.recent.sum;
        if time > 0.0 { cost / time } else { 0.0 }
    }

    /// What may still be spent in the current [`SPAN`], ns.
    pub fn left(&self) -> f64 {
        PLANNED * self.recent.income() - self.recent.sum.cost - self.owed
    }

    /// Whether even the shortest window would cost more than a whole [`SPAN`] allows: then only one window a minute is opened, to check
    /// whether that still holds.
    pub fn is_starved(&self) -> bool {
        self.last.is_some() && self.glimpse() > PLANNED * self.recent.income()
    }

    /// Expected cost of the next window, ns: that of the last one, at the current load, and no more than a second pays for. A window that is long at
    /// low load need not be as long at high load.
    fn expected(&self) -> f64 {
        let most = (self.recent.income() / SPAN * 1e9).max(self.glimpse());
        self.last.map_or(0.0, |last| (last.cost * self.today(last)).min(most))
    }

    /// What the shortest window would cost, ns.
    fn glimpse(&self) -> f64 {
        self.last
            .map_or(0.0, |last| self.price * (GLIMPSE + DETACH) * self.today(last))
    }

    /// Current load relative to that of the last window.
    fn today(&self, last: Running) -> f64 {
        if last.own > 0.0 {
            (self.load * last.time / last.own).clamp(0.01, 100.0)
        } else {
            1.0
        }
    }
}

/// Income and cost of the last [`SPAN`], in entries of [`ENTRY`].
#[derive(Clone, Debug, Default)]
struct Recent {
    entries: VecDeque<Entry>,
    sum: Entry,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    time: f64,
    income: f64,
    cost: f64,
}

impl Entry {
    fn add(&mut self, other: Self, sign: f64) {
        self.time += sign * other.time;
        self.income += sign * other.income;
        self.cost += sign * other.cost;
    }
}

impl Recent {
    fn note(&mut self, time: f64, income: f64, cost: f64) {
        let new = Entry { time, income, cost };
        self.sum.add(new, 1.0);
        match self.entries.back_mut() {
            Some(last) if last.time < ENTRY => last.add(new, 1.0),
            _ => self.entries.push_back(new),
        }
        // An entry is removed when all of it is too old: cost is kept too long rather than too short.
        while let Some(oldest) = self.entries.front()
            && self.sum.time - oldest.time >= SPAN
        {
            self.sum.add(*oldest, -1.0);
            self.entries.pop_front();
        }
    }

    /// Income of a whole [`SPAN`], ns: extrapolated while less time is known.
    fn income(&self) -> f64 {
        if self.sum.time > 0.0 {
            self.sum.income / self.sum.time * SPAN
        } else {
            0.0
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
