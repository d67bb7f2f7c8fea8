//! The decision: an account of what a plane may cost a target and has cost it. Pure: facts in, a turn out.

use std::{collections::VecDeque, time::Duration};

use super::{Limits, tail};

/// In no stretch of this length may a plane cost more than the limits allow for it, ns.
pub const SPAN: f64 = 5e9;
/// The part of what [`SPAN`] allows that is planned with: what is noticed late takes the rest.
const PLANNED: f64 = 0.9;
/// The part of its limits that a plane has whatever is taken before it: enough for a window now and then.
const LEAST: f64 = 0.05;
/// How fast the memory of a target's CPU use fades, s.
const FADE: f64 = 5.0;
/// Length of an entry of the recent past, ns.
const ENTRY: f64 = 100e6;
/// Shortest time that a window can take, from the first probe in place to a turn of the governor's, and what detaching
/// takes besides, ns.
const GLIMPSE: f64 = 20e6;
const DETACH: f64 = 20e6;
/// What is too dear for a window is tried again after this long, ns: the load may be another by then.
const AGAIN: f64 = 60e9;
/// Where windows must be rare there is one about this often, ns, if that leaves the shortest its time; and one every [`AGAIN`]
/// in any case.
const RARE: f64 = 10e9;
/// Windows that cost more than this many times what the target does for itself are not told apart.
const SLOWEST: f64 = 100.0;

/// What happened since the last turn. Times in ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    pub elapsed: f64,
    /// CPU time of the target less what whywait cost it.
    pub own: f64,
    /// Cost that comes out of the same limits before this plane's.
    pub before: f64,
    /// Cost of this plane.
    pub windows: f64,
    /// The part of its limits that the host's leave a target, 1 for all of it.
    pub scale: f64,
    /// How busy the cores are that the target has, 1 for all of their time.
    pub busy: f64,
    /// Share of the target's requests that may come to lie over its 99th percentile of latency because of this plane's windows.
    pub tail: f64,
}

/// Where the window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Closed,
    /// Attaching or detaching.
    Busy,
    /// For so long.
    Open(Duration),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Stay,
    Open,
    Close,
}

/// A window, attaching and detaching included; ns.
#[derive(Clone, Copy, Debug, Default)]
struct Running {
    cost: f64,
    time: f64,
    /// CPU time of the target's own meanwhile.
    own: f64,
    /// Cost and time between attaching and detaching only.
    open: (f64, f64),
}

impl Running {
    /// Cost while it was open, for each ns of the target's own CPU time; `load` is what that goes by where the kernel's clock
    /// shows none. At most [`SLOWEST`].
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
    /// A window is not closed before this, unless [`SPAN`] is spent up.
    shortest: Duration,
    /// What may be spent, ns; below 0 when too much was.
    credit: f64,
    /// Cost that comes before this plane's and did not come out of its income yet, ns.
    owed: f64,
    recent: Recent,
    /// Cost while the window is open, or was, ns a ns.
    price: f64,
    /// Since the window under way was asked for.
    running: Running,
    /// The last whole window, and how long ago it was, ns.
    last: Option<Running>,
    rested: f64,
    /// Cost in windows, for each ns of the target's own CPU time, of the last few.
    slower: f64,
    /// Share of the time that windows may take for the tail's sake.
    rare: f64,
    /// Whether the next window waits for that, and not for credit.
    held: bool,
    /// Since when it has been too dear for the next one, ns; 0 while it is not.
    starved: f64,
    /// The target's CPU use of late, cores, and since when it is known, s.
    load: f64,
    known: f64,
    /// Cost by the count of hits beyond the CPU time that the clock has shown so far, ns; at most 0.
    late: f64,
    /// How many windows' cost must be there before the next: random, so that windows do not fall in step with the load.
    patience: f64,
    random: fastrand::Rng,
}

impl Ledger {
    /// An account without a penny; `seed` makes targets' windows differ.
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

    /// Takes note of `facts` and decides.
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
        // What others took in a window of theirs is paid back little by little.
        self.owed += facts.before;
        let paid = self.owed.min(whole * (1.0 - LEAST));
        self.owed = (self.owed - paid).min(whole / facts.elapsed * SPAN);
        let income = whole - paid;
        self.credit += income - facts.windows;
        self.recent.note(facts.elapsed, income, facts.windows);
        self.running.cost += facts.windows;
        self.running.time += facts.elapsed;
        self.running.own += own;
        // What is not used is not hoarded: a burst of load must not meet windows saved up over hours.
        let most = (2.0 * self.expected()).max(income / facts.elapsed * 1e9);
        self.credit = self.credit.min(most);
        // What never needs to close is not closed for the tail's sake either.
        let whole = self.slower * self.load * facts.elapsed <= income;
        self.rare = if whole {
            1.0
        } else {
            tail::share(facts.tail, facts.busy, self.slower)
        };
        match phase {
            Phase::Closed => self.closed_turn(facts.elapsed),
            Phase::Open(time) => {
                self.running.open.0 += facts.windows;
                self.running.open.1 += facts.elapsed;
                let price = facts.windows / facts.elapsed;
                self.price += (price - self.price) / 2.0;
                // Until it is detached, should it be closed at the next turn only.
                let spent_up = self.left() <= self.price.max(price) * (facts.elapsed + DETACH);
                let rare = self.rare < 1.0 && time.as_nanos() as f64 >= self.rare * RARE;
                let enough = (self.credit <= 0.0 || rare) && time >= self.shortest;
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

    /// Time after the last window in which there is none, for the tail's sake, ns.
    fn rest(&self) -> f64 {
        let rest = self.last.map_or(0.0, |last| last.time * (1.0 / self.rare - 1.0));
        (self.patience * rest).min(AGAIN)
    }

    /// Whether windows are rarer than the budget would pay for, so that they are not seen in the 99th percentile of latency.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// CPU use of the target of late, cores.
    pub fn load(&self) -> f64 {
        self.load
    }

    /// What may still be spent in this very [`SPAN`], ns.
    pub fn left(&self) -> f64 {
        PLANNED * self.recent.income() - self.recent.sum.cost - self.owed
    }

    /// Whether even the shortest window would cost more than a whole [`SPAN`] allows: none is opened, but for one a minute
    /// to see whether that is still so.
    pub fn is_starved(&self) -> bool {
        self.last.is_some() && self.glimpse() > PLANNED * self.recent.income()
    }

    /// What the next window will cost, ns: what the last did, at today's load; one that is long when little happens need not
    /// be as long when much does.
    fn expected(&self) -> f64 {
        let most = (self.recent.income() / 2.0).max(self.glimpse());
        self.last.map_or(0.0, |last| (last.cost * self.today(last)).min(most))
    }

    /// What the shortest window would cost, ns.
    fn glimpse(&self) -> f64 {
        self.last
            .map_or(0.0, |last| self.price * (GLIMPSE + DETACH) * self.today(last))
    }

    /// The load of today for one of the last window's.
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
        // An entry leaves when all of it is too old: cost is rather remembered too long.
        while let Some(oldest) = self.entries.front()
            && self.sum.time - oldest.time >= SPAN
        {
            self.sum.add(*oldest, -1.0);
            self.entries.pop_front();
        }
    }

    /// Of a whole [`SPAN`], ns: what is not known yet is taken to be like what is.
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
