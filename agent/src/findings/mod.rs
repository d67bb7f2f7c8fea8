//! Findings: what the figures mean. A rule is a pure function from what the signals knew at the readings of the last minute to a sentence,
//! its evidence, what to look at or change, how sure that is, and the time that it explains. One file per rule, and one table: [`RULES`].

pub mod change;
pub mod docs;
pub mod facts;
pub mod go;
pub mod judge;
pub mod net;
pub mod process;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

pub use change::Change;
pub use facts::Facts;
pub use judge::{Judge, Raised};

/// A rule: when it holds, what it says, and how it is judged.
pub struct Rule {
    pub name: &'static str,
    /// What its finding says, for docs/findings.md.
    pub says: &'static str,
    /// Figures that its finding comes with.
    pub evidence: &'static str,
    /// What to look at, or to change.
    pub advice: &'static str,
    /// When it holds, and why there.
    pub threshold: &'static str,
    /// Rules whose findings say less than this one's: they are not shown while this one holds.
    pub instead_of: &'static [&'static str],
    /// The summary's note that says less than this one's findings.
    pub instead_of_note: Option<&'static str>,
    /// Whether one judgement is enough, as the rule itself compares many readings.
    pub at_once: bool,
    pub judge: fn(&Change<'_>) -> Verdict,
}

/// A finding where the rule holds, None where it does not, and why it cannot be judged.
pub type Verdict = Result<Option<Finding>, String>;

/// What a rule found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub sentence: String,
    pub evidence: Vec<Figure>,
    pub advice: String,
    pub sureness: Sureness,
    /// Time that it explains, seconds per second: of threads, of goroutines, or of callers, as the evidence says.
    pub explained: f64,
    /// What it is about, such as a function or a peer: another one is another finding.
    pub subject: String,
}

/// One figure of the evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub what: Cow<'static, str>,
    pub value: f64,
    /// As in "12 %"; "" for a number.
    pub unit: &'static str,
}

impl Figure {
    /// A figure.
    pub fn new(what: impl Into<Cow<'static, str>>, value: f64, unit: &'static str) -> Self {
        let what = what.into();
        Self { what, value, unit }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, short(self.value))?;
        if self.unit.is_empty() {
            return Ok(());
        }
        write!(f, " {}", self.unit)
    }
}

/// About three digits, and none behind the point of whole numbers.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size < 0.1 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sureness {
    /// Of little that was seen: under 5 % of the time, or a guess.
    Low,
    /// Of windows, of a sample, or of a signal that is there in part.
    Medium,
    /// Of complete counts.
    High,
}

impl Sureness {
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Every rule. Findings that explain as much as each other are shown in this order.
pub static RULES: [Rule; 18] = [
    go::above_quota::RULE,
    process::throttled::RULE,
    process::no_core::RULE,
    go::too_few_processors::RULE,
    go::saturated::RULE,
    go::mutex::RULE,
    go::late_stop::RULE,
    go::limiter::RULE,
    go::memory_limit::RULE,
    go::small_heap::RULE,
    go::gc_cpu::RULE,
    go::assists::RULE,
    go::forced::RULE,
    net::slow_peer::RULE,
    net::connect_fails::RULE,
    net::connect_per_request::RULE,
    go::threads::RULE,
    go::leak::RULE,
];

/// The rule of a name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}
