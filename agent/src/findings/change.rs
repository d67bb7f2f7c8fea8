//! What rules are given: the facts of the last minute, and how much of the time they stand for.

use agent_common::hits::Plane;

use super::{Facts, Sureness};
use crate::{
    findings::go::facts::GoFacts,
    signal::{Coverage, SignalState},
};

/// Share of a threshold above which a rule that holds goes on to hold.
const HYSTERESIS: f64 = 0.7;
/// Windows that cover less of the time than this say little.
const LITTLE: f64 = 0.05;
/// And more than this is as good as all.
const WHOLE: f64 = 0.9;

/// The facts of two readings and more, oldest first.
pub struct Change<'a> {
    pub samples: &'a [Facts],
    /// How much there is of each signal.
    pub states: &'a [SignalState],
    pub pid: u32,
    /// The rule holds already: its thresholds are lower then.
    pub held: bool,
}

impl<'a> Change<'a> {
    /// Of at least two readings.
    pub fn of(samples: &'a [Facts], states: &'a [SignalState], pid: u32) -> Option<Self> {
        let change = Self {
            samples,
            states,
            pid,
            held: false,
        };
        (samples.len() > 1 && change.seconds() > 0.0).then_some(change)
    }

    pub fn first(&self) -> &'a Facts {
        &self.samples[0]
    }

    pub fn now(&self) -> &'a Facts {
        &self.samples[self.samples.len() - 1]
    }

    /// Time between the first and the last reading, s.
    pub fn seconds(&self) -> f64 {
        self.now().time.0.saturating_sub(self.first().time.0) as f64 / 1e9
    }

    /// How much a cumulative figure grew.
    pub fn more(&self, of: impl Fn(&Facts) -> u64) -> u64 {
        of(self.now()).saturating_sub(of(self.first()))
    }

    /// The same, per second.
    pub fn rate(&self, of: impl Fn(&Facts) -> u64) -> f64 {
        self.more(of) as f64 / self.seconds()
    }

    /// Whether a figure is over a threshold, which is lower for a rule that holds already.
    pub fn is_over(&self, value: f64, threshold: f64) -> bool {
        value >= if self.held { HYSTERESIS * threshold } else { threshold }
    }

    /// That a signal is there, and how sure its figures are at most.
    pub fn needs(&self, signal: &str) -> Result<Sureness, String> {
        let state = self.states.iter().find(|state| state.signal == signal);
        match state.map(|state| &state.coverage) {
            None | Some(Coverage::Full) => Ok(Sureness::High),
            Some(Coverage::Partial(_)) => Ok(Sureness::Medium),
            Some(Coverage::Off(reason) | Coverage::Lacking(reason)) => Err(format!("{signal} is off: {reason}")),
        }
    }

    /// The same, and that windows of its plane were open.
    pub fn seen(&self, signal: &str, plane: Plane) -> Result<Sureness, String> {
        let at_most = self.needs(signal)?;
        let (first, now) = (self.first().planes[plane as usize], self.now().planes[plane as usize]);
        let share = (now.open - first.open) / (now.time - first.time).max(1.0);
        let by_share = match share {
            share if share <= 0.0 => return Err(format!("no window of {signal} was open in the last minute")),
            share if share < LITTLE => Sureness::Low,
            share if share < WHOLE => Sureness::Medium,
            _ => Sureness::High,
        };
        Ok(by_share.min(at_most))
    }

    /// What is known of the Go runtime.
    pub fn go(&self) -> Result<GoChange<'a>, String> {
        let none = || "no Go runtime, or its memory was not read yet".to_owned();
        let mut known = self.samples.iter().filter_map(|facts| facts.go.as_ref());
        let first = known.next().ok_or_else(none)?;
        let now = self.now().go.as_ref().ok_or_else(none)?;
        let seconds = now.time.0.saturating_sub(first.time.0) as f64 / 1e9;
        if seconds <= 0.0 {
            return Err("the runtime's memory was read once".to_owned());
        }
        Ok(GoChange { first, now, seconds })
    }
}

/// Two readings of a Go runtime.
pub struct GoChange<'a> {
    pub first: &'a GoFacts,
    pub now: &'a GoFacts,
    /// Between them, s.
    pub seconds: f64,
}

impl GoChange<'_> {
    /// How much a cumulative figure grew.
    pub fn more(&self, of: impl Fn(&GoFacts) -> u64) -> u64 {
        of(self.now).saturating_sub(of(self.first))
    }

    /// The same, per second.
    pub fn rate(&self, of: impl Fn(&GoFacts) -> u64) -> f64 {
        self.more(of) as f64 / self.seconds
    }
}
