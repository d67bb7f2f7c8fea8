//! What other targets' windows cost a target: while the kernel's hooks are attached for others, its threads call them too, without
//! counting. That may take a share of its budget; where it would take more, the others' windows end. Pure.

use std::time::Duration;

use super::{Decision, Facts, Ledger, Limits, ledger::Phase};

/// The share of a target's budget that may be spent on others' windows.
const PART: f64 = 0.2;

/// For which targets the hooks are attached, as seen by one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    No,
    /// For its own window, and perhaps for others'.
    Own,
    /// For others only.
    Others,
}

/// One target's account of others' windows.
#[derive(Clone, Debug)]
pub struct Bystander {
    ledger: Ledger,
    agrees: bool,
    /// For how long they have been attached for others, while it agrees, ns.
    open: f64,
    /// Whether it ever refused.
    minded: bool,
}

impl Bystander {
    /// A new account: the first windows are on credit.
    pub fn new(limits: Limits, shortest: Duration, seed: u64) -> Self {
        Self {
            ledger: Ledger::new(limits.part(PART), shortest, seed),
            agrees: true,
            open: 0.0,
            minded: false,
        }
    }

    /// Adds what happened since the last decision; [`Facts::windows`] is the cost of calls that did not count.
    pub fn turn(&mut self, facts: Facts, attached: Attached) {
        match attached {
            Attached::Others if self.agrees => {
                self.open += facts.elapsed;
                let phase = Phase::Open(Duration::from_nanos(self.open as u64));
                self.agrees = self.ledger.turn(facts, phase) != Decision::Close;
                self.minded |= !self.agrees;
            }
            // The others' windows are being closed.
            Attached::Others => {
                self.ledger.turn(facts, Phase::Busy);
            }
            Attached::No | Attached::Own => {
                if self.open > 0.0 {
                    self.open = 0.0;
                    self.ledger.closed();
                }
                self.agrees = self.ledger.turn(facts, Phase::Closed) == Decision::Open;
            }
        }
    }

    /// Whether others' windows are limited because of this target.
    pub fn minds(&self) -> bool {
        self.minded
    }

    /// Whether others may have windows while this target has none.
    pub fn agrees(&self) -> bool {
        self.agrees
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::tail;

    const STEP: f64 = 50e6;
    const LIMITS: Limits = Limits {
        share: 0.01,
        floor: 0.001,
        tail: None,
    };

    /// A neighbour that wants a window all the time, for two minutes. What its hooks cost the bystander as a share of its own CPU
    /// time, and the share of the time that they were attached.
    fn beside(load: f64, price: f64, busy: Option<f64>) -> (f64, f64) {
        let mut bystander = Bystander::new(LIMITS, Duration::from_millis(250), 7);
        let (mut attached, mut cost, mut time) = (false, 0.0, 0.0);
        let steps = 2400;
        for _ in 0..steps {
            let own = load * STEP;
            let idle = if attached { own * price } else { 0.0 };
            cost += idle;
            time += if attached { STEP } else { 0.0 };
            let facts = Facts {
                elapsed: STEP,
                own,
                before: 0.0,
                windows: idle,
                scale: 1.0,
                busy: busy.unwrap_or(0.0),
                tail: busy.map_or(f64::INFINITY, |_| tail::allowed(0.02) / 3.0),
                measured: None,
            };
            bystander.turn(facts, if attached { Attached::Others } else { Attached::No });
            attached = bystander.agrees();
        }
        let elapsed = f64::from(steps) * STEP;
        (cost / (load * elapsed), time / elapsed)
    }

    #[test]
    fn others_windows_cost_a_part_of_the_budget_and_not_more() {
        for (load, price) in [(1.5, 0.014), (0.5, 0.02), (1.0, 0.1)] {
            let (cost, time) = beside(load, price, None);
            assert!(
                (0.5..1.1).contains(&(cost / 0.01 / PART)),
                "load {load}, price {price}: {cost}"
            );
            assert!(time > 0.01, "load {load}, price {price}: {time} of the time");
        }
    }

    #[test]
    fn whom_they_cost_little_never_minds() {
        for (load, price, busy) in [(1.5, 0.001, None), (0.005, 0.02, None), (1.5, 0.001, Some(0.75))] {
            let (_, time) = beside(load, price, busy);
            assert!(time > 0.99, "load {load}, price {price}: {time} of the time");
        }
    }

    #[test]
    fn on_busy_cores_they_are_rarer_but_not_gone() {
        let shares = [0.7, 0.9, 1.0].map(|busy| beside(2.0 * busy, 0.014, Some(busy)).1);
        assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
        assert!(shares[2] > 0.004, "{shares:?}");
    }

    #[test]
    fn its_own_window_asks_nobody() {
        let mut bystander = Bystander::new(LIMITS, Duration::from_millis(250), 7);
        let facts = |windows| Facts {
            elapsed: STEP,
            own: STEP,
            before: 0.0,
            windows,
            scale: 1.0,
            busy: 0.0,
            tail: f64::INFINITY,
            measured: None,
        };
        while bystander.agrees() {
            bystander.turn(facts(0.1 * STEP), Attached::Others);
        }
        // It owes for what it had; a window of its own meanwhile changes nothing about that.
        bystander.turn(facts(0.0), Attached::Own);
        assert!(!bystander.agrees());
        for _ in 0..2000 {
            bystander.turn(facts(0.0), Attached::Own);
        }
        assert!(bystander.agrees());
    }
}
