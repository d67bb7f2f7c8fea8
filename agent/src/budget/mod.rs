//! The budget: what whywait may cost a target, and when and for how long the expensive probes are attached. It decides and does not act: hits and
//! their cost come in, and whether a window is to be opened or closed goes out.
//!
//! Plane 0 and the end of each GC cycle cost next to nothing: always on. The kernel's hooks (plane 1) are cheap, and so is the runtime's own sample (plane 2s).
//! The probes of goroutines and tasks (plane 2) are expensive, a trap of about a microsecond each. All count in windows, as often and as long as the budget pays for, and their figures are
//! scaled by the share of time that windows cover. Between windows probes are detached, and hooks too while no target's window is open.
//! `ledger` decides, `bystander` limits what others' windows may cost a target, `latency` measures whether windows make a service's
//! latency longer and `tail` models that where there are no requests to measure; `division` divides the budget between the planes. `extrapolate` makes unbiased `figures`
//! of what the windows saw, scaled by time, or by the target's `work`, which is always counted: `amount` says which of it
//! they follow.

#[cfg(test)]
mod allowance_tests;
pub mod amount;
pub mod bystander;
pub mod division;
pub mod extrapolate;
mod figures;
mod interval;
pub mod latency;
pub mod ledger;
mod outdated;
pub mod tail;
pub mod work;

pub use agent_common::hits::Plane;
pub use amount::Amount;
pub use bystander::Bystander;
pub use division::Benefit;
pub use extrapolate::Extrapolator;
pub use interval::Interval;
pub use latency::Latency;
pub use ledger::{Decision, Facts, Ledger};
pub use work::Work;

/// The largest share of a target's budget for the hooks on sockets, and with them for the sample: if it covers their whole cost, they always count.
const FIRST: f64 = 0.6;
/// Their share if it does not, and they count in windows like the other planes.
const SOCKETS_IN_WINDOWS: f64 = 0.3;
const SAMPLE_IN_WINDOWS: f64 = 0.45;

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

    /// The limits of a plane, of which what planes before it cost is taken; `reserved` is the share for the probes.
    pub fn of(self, plane: Plane, reserved: f64) -> Self {
        match plane {
            Plane::Sockets | Plane::Sample => self.part(FIRST),
            Plane::Threads => self.part(1.0 - reserved),
            Plane::Probes => self,
        }
    }

    /// The limits of the sockets or the sample of a target that uses `load` cores, where these would cost `full` cores if they always counted,
    /// and what is paid `before` them costs so many.
    pub fn of_first(self, plane: Plane, full: f64, before: f64, load: f64) -> Self {
        let always = self.part(FIRST);
        if before + full <= always.income(load, 1.0) {
            return always;
        }
        self.part(if plane == Plane::Sockets {
            SOCKETS_IN_WINDOWS
        } else {
            SAMPLE_IN_WINDOWS
        })
    }

    /// The limits of a target that has a CPU quota, cores: the floor is a share of that if it is less than a core.
    pub fn within(self, quota: Option<f64>) -> Self {
        Self {
            floor: self.floor * quota.unwrap_or(1.0).min(1.0),
            ..self
        }
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
    fn a_floor_is_of_a_core_or_of_a_smaller_quota() {
        let limits = Limits {
            share: 0.01,
            floor: 0.02,
            tail: None,
        };
        for (quota, floor) in [(None, 0.02), (Some(4.0), 0.02), (Some(0.25), 0.005)] {
            assert_eq!(limits.within(quota).income(0.0, 1.0), floor, "{quota:?}");
        }
    }

    #[test]
    fn sockets_may_cost_most_and_leave_something_to_the_others() {
        let limits = Limits {
            share: 0.01,
            floor: 0.0,
            tail: None,
        };
        let percent = |plane| (limits.of(plane, 0.25).income(100.0, 1.0) * 100.0).round();
        assert_eq!(Plane::ALL.map(percent), [60.0, 60.0, 75.0, 100.0]);
        let first = |plane, full, before| {
            let limits = limits.of_first(plane, full, before, 1.0);
            (limits.income(100.0, 1.0) * 100.0).round()
        };
        assert_eq!(
            [0.0, 0.0059, 0.0061].map(|full| first(Plane::Sockets, full, 0.0)),
            [60.0, 60.0, 30.0]
        );
        assert_eq!(
            [0.0, 0.0014, 0.0016].map(|full| first(Plane::Sample, full, 0.0045)),
            [60.0, 60.0, 45.0]
        );
    }

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
