//! The budget: what whywait may cost a target, and when and for how long the expensive probes are attached. It decides and does not act: hits and
//! their cost come in, and whether a window is to be opened or closed goes out.
//!
//! Plane 0 and the end of each GC cycle cost next to nothing: always on. The kernel's hooks (plane 1) are cheap. The probes of goroutines and tasks
//! (plane 2) are expensive, a trap of about a microsecond each. Both count in windows, as often and as long as the budget pays for, and their figures are
//! scaled by the share of time that windows cover. Between windows probes are detached, and hooks too while no target's window is open.
//! `ledger` decides, `bystander` limits what others' windows may cost a target, `tail` says how rare windows must be for the service's latency, `division` divides
//! the budget between the planes, and `extrapolate` makes unbiased figures from what the windows saw.

#[cfg(test)]
mod allowance_tests;
pub mod bystander;
pub mod division;
pub mod extrapolate;
pub mod ledger;
pub mod tail;

pub use agent_common::hits::Plane;
pub use bystander::Bystander;
pub use division::Benefit;
pub use extrapolate::Extrapolator;
pub use ledger::{Decision, Facts, Ledger};

/// The user's limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Share of a target's CPU time, 0.01 for 1 %.
    pub share: f64,
    /// Share of one core that a target may always cost: so windows of quiet services can stay open.
    pub floor: f64,
    /// By which share windows may lengthen the 99th percentile of a service's latency; None for any.
    pub tail: Option<f64>,
}

impl Limits {
    /// What they allow a target that used `own` CPU time in `elapsed`; all in ns.
    pub fn income(self, own: f64, elapsed: f64) -> f64 {
        (self.share * own).max(self.floor * elapsed)
    }

    /// The limits of the hooks, when a share is `reserved` for the probes.
    pub fn of_hooks(self, reserved: f64) -> Self {
        self.part(1.0 - reserved)
    }

    /// A share of what they allow.
    pub fn part(self, part: f64) -> Self {
        Self {
            share: self.share * part,
            floor: self.floor * part,
            ..self
        }
    }
}

/// A percentage, or `off`.
pub fn parse_share(text: &str) -> Result<Share, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Share(None));
    }
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let percent: f64 = number
        .parse()
        .map_err(|_| format!("{text}: not a share; write e.g. 1% or off"))?;
    if !(0.0..=100.0).contains(&percent) || percent == 0.0 {
        return Err(format!("{text}: must be over 0% and at most 100%, or off"));
    }
    Ok(Share(Some(percent / 100.0)))
}

/// A share as given on the command line; None when it is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub Option<f64>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (text, expected) in [("1%", 0.01), ("0.5", 0.005), ("100 %", 1.0)] {
            assert_eq!(parse_share(text), Ok(Share(Some(expected))), "{text}");
        }
        assert_eq!(parse_share("off"), Ok(Share(None)));
        for bad in ["", "0", "-1%", "101%", "much", "NaN"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }
}
