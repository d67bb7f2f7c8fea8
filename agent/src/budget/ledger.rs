//! The decision: an account of what a plane may cost a target and has cost it. Pure: facts in, a turn out.

use std::time::Duration;

use super::Limits;

/// The part of its limits that a plane has whatever is taken before it: enough for a window now and then.
const LEAST: f64 = 0.05;
/// How fast the memory of a target's CPU use fades, s.
const FADE: f64 = 5.0;

/// What happened since the last turn. Times in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    pub elapsed: f64,
    /// CPU time of the target less what whywait cost it.
    pub own: f64,
    /// Cost that comes out of the same limits before this plane's.
    pub before: f64,
    /// Cost of this plane.
    pub windows: f64,
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
pub enum Turn {
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
}

/// One plane's account at one target.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Limits,
    /// A window is not closed before this.
    shortest: Duration,
    /// What may be spent, ns; below 0 when too much was.
    credit: f64,
    /// Since the window under way was asked for.
    running: Running,
    /// The last whole window.
    last: Option<Running>,
    /// The target's CPU use of late, cores, and since when it is known, s.
    load: f64,
    known: f64,
    /// CPU time that the kernel's clock, which goes by ticks, has not shown yet, ns; at most 0.
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
            running: Running::default(),
            last: None,
            load: 0.0,
            known: 0.0,
            late: 0.0,
            patience: 1.0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes note of `facts` and decides.
    pub fn turn(&mut self, facts: Facts, phase: Phase) -> Turn {
        if facts.elapsed <= 0.0 {
            return Turn::Stay;
        }
        let own = facts.own + self.late;
        self.late = own.min(0.0);
        let own = own.max(0.0);
        self.known = (self.known + facts.elapsed / 1e9).min(FADE);
        let weight = facts.elapsed / 1e9 / self.known;
        self.load += (own / facts.elapsed - self.load) * weight;
        let whole = (self.limits.share * own).max(self.limits.floor * facts.elapsed);
        let income = (whole - facts.before).max(whole * LEAST);
        self.credit += income - facts.windows;
        self.running.cost += facts.windows;
        self.running.time += facts.elapsed;
        self.running.own += own;
        // What is not used is not hoarded: a burst of load must not meet windows saved up over hours.
        let most = (2.0 * self.expected()).max(income / facts.elapsed * 1e9);
        self.credit = self.credit.min(most);
        match phase {
            Phase::Closed if self.credit >= self.patience * self.expected() => {
                self.running = Running::default();
                Turn::Open
            }
            Phase::Open(time) if self.credit <= 0.0 && time >= self.shortest => Turn::Close,
            _ => Turn::Stay,
        }
    }

    /// A window is over, detaching included.
    pub fn closed(&mut self) {
        self.last = Some(self.running);
        self.patience = 0.5 + self.random.f64();
    }

    /// What the next window will cost, ns: what the last did, at today's load.
    fn expected(&self) -> f64 {
        match self.last {
            None => 0.0,
            Some(Running { cost, time, own }) if own > 0.0 => cost * (self.load * time / own).clamp(0.01, 100.0),
            Some(Running { cost, .. }) => cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: f64 = 20e6;

    /// A target under a load that may change, and what plane 2 costs while it is open.
    struct Simulation {
        /// Cost of plane 2 for each ns of the target's own work.
        price: f64,
        always: f64,
    }

    #[derive(Default)]
    struct Outcome {
        own: f64,
        windows: f64,
        open: f64,
        elapsed: f64,
        largest: f64,
        opened: u32,
        /// Most that was ever over the income.
        over: f64,
    }

    /// Runs `steps` of 20 ms with `load` cores of own work at each; attaching takes four steps, detaching two.
    fn run(limits: Limits, simulation: &Simulation, steps: usize, load: impl Fn(usize) -> f64) -> Outcome {
        let (mut ledger, mut outcome) = (Ledger::new(limits, Duration::from_millis(50), 7), Outcome::default());
        let (mut state, mut until, mut window) = (0, 0, 0.0);
        let (mut since, mut income) = (0, 0.0);
        for step in 0..steps {
            let own = load(step) * STEP;
            let windows = match state {
                0 => 0.0,
                2 => own * simulation.price,
                _ => own * simulation.price / 2.0,
            };
            let always = own * simulation.always;
            outcome.elapsed += STEP;
            outcome.own += own;
            outcome.windows += windows;
            window += windows;
            outcome.largest = outcome.largest.max(window);
            income += (limits.share * own).max(limits.floor * STEP);
            outcome.over = outcome.over.max(outcome.windows - income - outcome.largest);
            let phase = match state {
                0 => Phase::Closed,
                2 => Phase::Open(Duration::from_nanos(((step - since) as f64 * STEP) as u64)),
                _ => Phase::Busy,
            };
            outcome.open += if state == 2 { STEP } else { 0.0 };
            let facts = Facts {
                elapsed: STEP,
                own,
                before: always,
                windows,
            };
            match (ledger.turn(facts, phase), state) {
                (Turn::Open, 0) => (state, until, window, outcome.opened) = (1, step + 4, 0.0, outcome.opened + 1),
                (Turn::Close, 2) => (state, until) = (3, step + 2),
                (Turn::Stay, 1) if step >= until => (state, since) = (2, step),
                (Turn::Stay, 3) if step >= until => {
                    state = 0;
                    ledger.closed();
                }
                (Turn::Stay, _) => {}
                (turn, state) => panic!("{turn:?} in state {state}"),
            }
        }
        outcome
    }

    const ONE_PERCENT: Limits = Limits {
        share: 0.01,
        floor: 0.001,
    };

    #[test]
    fn what_is_cheap_stays_open() {
        let cheap = Simulation {
            price: 0.005,
            always: 0.001,
        };
        let outcome = run(ONE_PERCENT, &cheap, 3000, |_| 1.0);
        assert_eq!(outcome.opened, 1);
        assert!(
            outcome.open > 0.99 * outcome.elapsed,
            "{}",
            outcome.open / outcome.elapsed
        );
    }

    #[test]
    fn what_is_dear_costs_its_budget_and_not_more() {
        for price in [0.05, 0.3, 1.0, 4.0] {
            let dear = Simulation { price, always: 0.0 };
            let outcome = run(ONE_PERCENT, &dear, 60_000, |_| 1.5);
            let share = outcome.windows / outcome.own;
            assert!((0.007..0.0101).contains(&share), "price {price}: {share}");
            assert!(outcome.open > 0.0 && outcome.opened > 2);
        }
    }

    #[test]
    fn never_over_by_more_than_one_window_on_any_load() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let loads: Vec<f64> = (0..40).map(|_| random.f64().powi(3) * 4.0).collect();
            let simulation = Simulation {
                price: random.f64() * 3.0,
                always: random.f64() * 0.02,
            };
            let outcome = run(ONE_PERCENT, &simulation, 20_000, |step| loads[step / 500]);
            assert!(outcome.over <= 0.0, "seed {seed}: over by {}", outcome.over);
            assert!(outcome.opened > 0, "seed {seed}");
        }
    }

    #[test]
    fn a_quiet_target_is_seen_whole_within_the_floor() {
        let dear = Simulation {
            price: 0.5,
            always: 0.05,
        };
        let outcome = run(ONE_PERCENT, &dear, 3000, |_| 0.001);
        assert!(outcome.open > 0.95 * outcome.elapsed);
    }

    #[test]
    fn hooks_over_the_budget_leave_plane_2_its_least() {
        let heavy = Simulation {
            price: 0.5,
            always: 0.05,
        };
        let outcome = run(ONE_PERCENT, &heavy, 60_000, |_| 1.0);
        let share = outcome.windows / outcome.own;
        assert!((0.0003..0.00052).contains(&share), "{share}");
    }
}
