//! Loads and prices, simulated: what the ledger decides keeps the limits.

use super::*;

const STEP: f64 = 10e6;

/// A target under a load that may change, and what plane 2 costs while it is open.
struct Simulation {
    /// Cost of plane 2 for each ns of the target's own work.
    price: f64,
    always: f64,
    /// How busy the cores are, when the 99th percentile of latency may get longer by 2 % only.
    busy: Option<f64>,
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
    /// Of each step: what the limits allowed, less what is always on, and what windows cost.
    steps: Vec<(f64, f64)>,
}

impl Outcome {
    /// The largest cost in any [`SPAN`] from step `from` on, as a share of the largest that was allowed in one around it.
    fn worst(&self, from: usize) -> f64 {
        let long = (SPAN / STEP) as usize;
        let sum = |from: usize, of: fn(&(f64, f64)) -> f64| self.steps[from..from + long].iter().map(of).sum::<f64>();
        let shares = (from..self.steps.len() - 2 * long).step_by(7).map(|at| {
            let allowed = sum(at, |step| step.0).max(sum(at + long, |step| step.0));
            sum(at, |step| step.1) / allowed
        });
        shares.fold(0.0, f64::max)
    }
}

/// Runs `steps` of 10 ms with `load` cores of own work at each; attaching and detaching take two each.
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
        income += limits.income(own, STEP);
        let whole = limits.income(own, STEP);
        outcome.steps.push(((whole - always).max(whole * LEAST), windows));
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
            scale: 1.0,
            busy: simulation.busy.unwrap_or(0.0),
            tail: simulation.busy.map_or(f64::INFINITY, |_| tail::allowed(0.02)),
            measured: None,
        };
        match (ledger.turn(facts, phase), state) {
            (Decision::Open, 0) => (state, until, window, outcome.opened) = (1, step + 2, 0.0, outcome.opened + 1),
            (Decision::Close, 2) => (state, until) = (3, step + 2),
            (Decision::Stay, 1) if step >= until => (state, since) = (2, step),
            (Decision::Stay, 3) if step >= until => {
                state = 0;
                ledger.closed();
            }
            (Decision::Stay, _) => {}
            (turn, state) => panic!("{turn:?} in state {state}"),
        }
    }
    outcome
}

const ONE_PERCENT: Limits = Limits {
    share: 0.01,
    floor: 0.001,
    tail: None,
};

#[test]
fn what_is_cheap_stays_open() {
    let cheap = Simulation {
        price: 0.005,
        always: 0.001,
        busy: None,
    };
    let outcome = run(ONE_PERCENT, &cheap, 6000, |_| 1.0);
    assert_eq!(outcome.opened, 1);
    assert!(
        outcome.open > 0.99 * outcome.elapsed,
        "{}",
        outcome.open / outcome.elapsed
    );
}

#[test]
fn what_is_dear_costs_its_budget_and_not_more() {
    // At the last even the shortest window costs more than 5 s pay for.
    for (price, least) in [(0.05, 0.006), (0.3, 0.006), (1.0, 0.004), (4.0, 0.001)] {
        let dear = Simulation {
            price,
            always: 0.0,
            busy: None,
        };
        let outcome = run(ONE_PERCENT, &dear, 120_000, |_| 1.5);
        let share = outcome.windows / outcome.own;
        assert!((least..0.0101).contains(&share), "price {price}: {share}");
        assert!(outcome.open > 0.0 && outcome.opened > 2);
        let worst = outcome.worst(200);
        assert!(price > 2.0 || worst <= 1.02, "price {price}: {worst}");
    }
}

/// After its third window a plane costs what it may, and goes on to: no swinging between much and nothing.
#[test]
fn after_three_windows_it_costs_what_it_may() {
    const MINUTE: usize = 6000;
    for price in [0.05, 0.1, 0.3, 0.6] {
        let simulation = Simulation {
            price,
            always: 0.0,
            busy: None,
        };
        let outcome = run(ONE_PERCENT, &simulation, 6 * MINUTE, |_| 1.5);
        let begins = outcome
            .steps
            .windows(2)
            .enumerate()
            .filter(|(_, two)| two[0].1 == 0.0 && two[1].1 > 0.0);
        let third = begins.map(|(step, _)| step).nth(2).unwrap();
        assert!(third < 2 * MINUTE, "price {price}: third window at step {third}");
        for half in outcome.steps[third..].chunks_exact(MINUTE / 2) {
            let (allowed, cost) = half
                .iter()
                .fold((0.0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
            assert!(
                (0.7..=1.01).contains(&(cost / allowed)),
                "price {price}: {}",
                cost / allowed
            );
        }
    }
}

#[test]
fn a_load_that_rises_fifty_fold_is_paid_for_within_any_five_seconds() {
    for seed in 0..50 {
        let price = 0.02 + 0.02 * f64::from(seed);
        let rise = 3000 + seed as usize * 7;
        let simulation = Simulation {
            price,
            always: 0.0,
            busy: None,
        };
        let outcome = run(
            ONE_PERCENT,
            &simulation,
            8000,
            |step| if step < rise { 0.04 } else { 2.0 },
        );
        // The second in which it rises: what it takes to notice and to detach.
        let worst = outcome.worst(rise + 100);
        let step = price * STEP / (ONE_PERCENT.share * SPAN);
        assert!(worst <= 1.0 + step, "price {price}: {worst}");
        let rising: f64 = outcome.steps[rise..rise + 100].iter().map(|step| step.1).sum();
        assert!(
            rising <= price * 2.0 * 6.0 * STEP + 0.01 * 2.0 * SPAN,
            "price {price}: {rising}"
        );
    }
}

#[test]
fn what_is_too_dear_for_any_window_is_tried_once_a_minute() {
    let dear = Simulation {
        price: 3.0,
        always: 0.0,
        busy: None,
    };
    let outcome = run(ONE_PERCENT, &dear, 120_000, |_| 0.5);
    assert!((10..=21).contains(&outcome.opened), "{} in 20 minutes", outcome.opened);
    let share = outcome.windows / outcome.own;
    assert!(share < 0.01, "{share}");
}

#[test]
fn never_over_by_more_than_one_window_on_any_load() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let loads: Vec<f64> = (0..40).map(|_| random.f64().powi(3) * 4.0).collect();
        let simulation = Simulation {
            price: random.f64() * 3.0,
            always: random.f64() * 0.02,
            busy: None,
        };
        let outcome = run(ONE_PERCENT, &simulation, 40_000, |step| loads[step / 1000]);
        assert!(outcome.over <= 0.0, "seed {seed}: over by {}", outcome.over);
        assert!(outcome.opened > 0, "seed {seed}");
    }
}

#[test]
fn a_quiet_target_is_seen_whole_within_the_floor() {
    let dear = Simulation {
        price: 0.5,
        always: 0.05,
        busy: None,
    };
    let outcome = run(ONE_PERCENT, &dear, 6000, |_| 0.001);
    assert!(outcome.open > 0.95 * outcome.elapsed);
}

#[test]
fn hooks_over_the_budget_leave_plane_2_its_least() {
    let heavy = Simulation {
        price: 0.5,
        always: 0.05,
        busy: None,
    };
    let outcome = run(ONE_PERCENT, &heavy, 120_000, |_| 1.0);
    let share = outcome.windows / outcome.own;
    assert!((0.0001..0.00052).contains(&share), "{share}");
}

#[test]
fn where_cores_are_busy_windows_are_as_rare_as_the_tail_needs() {
    for (price, busy, least) in [(0.25, 0.7, 50), (0.3, 0.5, 80), (1.0, 0.4, 20), (0.1, 0.8, 60)] {
        let simulation = Simulation {
            price,
            always: 0.0,
            busy: Some(busy),
        };
        let outcome = run(ONE_PERCENT, &simulation, 120_000, |_| 1.5);
        let most = tail::share(tail::allowed(0.02), busy, price);
        // Attaching and detaching are 40 ms of each, at half the price.
        let found = (outcome.open + f64::from(outcome.opened) * 2.0 * STEP) / outcome.elapsed;
        assert!(
            found < 1.15 * most,
            "price {price}, busy {busy}: {found}, {most} is the most"
        );
        assert!(found > 0.5 * most, "price {price}, busy {busy}: {found} of {most}");
        assert!(
            outcome.opened >= least,
            "price {price}, busy {busy}: {}",
            outcome.opened
        );
    }
}

#[test]
fn an_overloaded_target_is_looked_at_about_once_a_minute() {
    let simulation = Simulation {
        price: 0.2,
        always: 0.0,
        busy: Some(1.0),
    };
    let outcome = run(ONE_PERCENT, &simulation, 120_000, |_| 2.0);
    assert!((18..=45).contains(&outcome.opened), "{} in 20 minutes", outcome.opened);
    assert!(outcome.open / outcome.elapsed < 0.003);
}

#[test]
fn what_is_paid_for_whole_stays_open_on_busy_cores() {
    let cheap = Simulation {
        price: 0.005,
        always: 0.001,
        busy: Some(0.95),
    };
    let outcome = run(ONE_PERCENT, &cheap, 6000, |_| 1.0);
    assert!(outcome.open > 0.99 * outcome.elapsed);
}
