//! The attach plan: a pure function from what was found in a binary to probes, and to what each signal will be worth.

mod go;
mod handoff;
mod needs;
#[cfg(test)]
mod tests;
mod tokio;

use std::collections::HashMap;

use agent_common::{hits::Plane, target::Target};

use crate::{
    inspect::{ArgLocation, Image, ProbeSite, SiteError},
    signals,
};

/// Why a signal is off that the user did not want.
pub const LEFT_OUT: &str = "left out by --without";

/// One probe of the plan.
#[derive(Clone, Debug)]
pub struct Probe {
    pub signal: &'static str,
    /// Another signal that is nothing without it, and has it where the first is left out.
    pub also: Option<&'static str>,
    /// Whether the signal is nothing without it.
    pub essential: bool,
    /// Program name in the object.
    pub program: &'static str,
    pub site: ProbeSite,
}

impl Probe {
    /// The signals that it is for.
    pub fn signals(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.signal).chain(self.also)
    }
}

/// A probe or a hook that was wanted and could not be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub signal: &'static str,
    /// Whether the signal is nothing without it.
    pub essential: bool,
    pub reason: String,
}

/// How much of a signal there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    Full,
    /// Something is missing; the figures say less than they could.
    Partial(String),
    Off(String),
    /// Off since this version of the runtime has nothing of the kind: nothing is missing that there could be.
    Lacking(String),
}

impl Coverage {
    /// Whether nothing comes of the signal.
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off(_) | Self::Lacking(_))
    }

    /// Adds something that is missing; what was off stays off, for its own reason.
    pub fn lessen(&mut self, reason: &str) {
        *self = match std::mem::replace(self, Self::Full) {
            Self::Full => Self::Partial(reason.to_owned()),
            Self::Partial(before) => Self::Partial(format!("{before}; {reason}")),
            off => off,
        };
    }

    /// Takes it away; what was off keeps its own reason.
    pub fn end(&mut self, reason: &str) {
        if !self.is_off() {
            *self = Self::Off(reason.to_owned());
        }
    }
}

/// A signal of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalState {
    pub signal: &'static str,
    pub coverage: Coverage,
}

/// What to attach to one process, and what the kernel programs must know of it.
#[derive(Debug, Default)]
pub struct Plan {
    pub probes: Vec<Probe>,
    pub states: Vec<SignalState>,
    pub flags: u32,
    pub go: agent_common::go::Layout,
    pub tokio_vtable: u32,
    pub tokio_id_offset: u32,
    /// Run-time address of a task vtable → type id.
    pub types: Vec<(u64, u32)>,
    /// Run-time address of a probe → where its argument is.
    pub sites: Vec<(u64, u32)>,
    /// Type id → the future's name.
    pub futures: HashMap<u32, String>,
}

/// Whether a signal is off that the user wanted, and that there could be.
pub fn is_dark(states: &[SignalState]) -> bool {
    let dark = |state: &SignalState| matches!(&state.coverage, Coverage::Off(reason) if reason != LEFT_OUT);
    states.iter().any(dark)
}

/// What there is of each signal now: what was `planned`, but for what could not be attached.
pub fn states_now<'a>(planned: &[SignalState], failures: impl IntoIterator<Item = &'a Failure>) -> Vec<SignalState> {
    let mut states = planned.to_vec();
    for failure in failures {
        let of = states.iter_mut().filter(|state| state.signal == failure.signal);
        for state in of {
            if failure.essential {
                state.coverage.end(&failure.reason);
            } else {
                state.coverage.lessen(&failure.reason);
            }
        }
    }
    needs::resolve(&mut states);
    states
}

/// The plan for a process whose executable is `image` at `bias`, without the signals in `without`.
pub fn plan(image: &Image, bias: u64, without: &[String]) -> Plan {
    let mut plan = match image {
        Image::Go(image) => go::plan(image, bias),
        Image::Tokio(image) => tokio::plan(image, bias),
    };
    plan.leave_out(without);
    let is_poll_end = |probe: &Probe| probe.program == tokio::POLL_END;
    if !plan.probes.iter().any(is_poll_end) {
        tokio::without_ends(&mut plan);
    }
    plan
}

/// Where the probes are that see polls end, of some.
pub fn poll_ends(probes: &[Probe]) -> Vec<u64> {
    let ends = probes.iter().filter(|probe| probe.program == tokio::POLL_END);
    ends.map(|probe| probe.site.file_offset).collect()
}

/// What the kernel side is to be told of the types of tasks while probes that see polls end are `missing`, and what that takes from
/// their signal.
pub fn without_ends(image: &Image, bias: u64, missing: &[Probe]) -> (Vec<(u64, u32)>, Option<Failure>) {
    match image {
        Image::Go(_) => (Vec::new(), None),
        Image::Tokio(image) => (tokio::types(image, bias, missing), tokio::lost_ends(image, missing)),
    }
}

fn coverage(missing: Vec<String>) -> Coverage {
    if missing.is_empty() {
        Coverage::Full
    } else {
        Coverage::Partial(missing.join("; "))
    }
}

fn usable(site: Option<&Result<ProbeSite, SiteError>>, registers: &[ArgLocation]) -> Result<ProbeSite, String> {
    found(site).and_then(|site| in_registers(site, registers))
}

fn found(site: Option<&Result<ProbeSite, SiteError>>) -> Result<&ProbeSite, String> {
    let site = site.ok_or("not looked for in this binary")?;
    site.as_ref().map_err(ToString::to_string)
}

/// The programs read their arguments from these registers; a site where they have moved elsewhere is not used.
fn in_registers(site: &ProbeSite, registers: &[ArgLocation]) -> Result<ProbeSite, String> {
    if site.args == registers {
        Ok(site.clone())
    } else {
        Err(format!(
            "{}: its arguments are not in their registers at the only usable place",
            site.function
        ))
    }
}

impl Plan {
    /// Takes the signals in `without` out of it.
    fn leave_out(&mut self, without: &[String]) {
        let is_left_out = |signal: &str| without.iter().any(|name| name == signal);
        for state in self.states.iter_mut().filter(|state| is_left_out(state.signal)) {
            state.coverage = Coverage::Off(LEFT_OUT.to_owned());
        }
        self.drop_probes(is_left_out);
    }

    /// Takes all that hangs on the Go runtime's memory out of the plan; `reason` is why. What was off keeps its own reason.
    pub fn without_go(&mut self, reason: &str) {
        self.flags = 0;
        for signal in signals::go::NAMES {
            match self.states.iter_mut().find(|state| state.signal == signal) {
                Some(state) => state.coverage.end(reason),
                None => self.set(signal, Coverage::Off(reason.to_owned())),
            }
        }
        self.drop_probes(|signal| signals::go::NAMES.contains(&signal));
    }

    /// Drops the probes of some signals, but for those that another signal has as well.
    fn drop_probes(&mut self, gone: impl Fn(&str) -> bool) {
        self.probes = std::mem::take(&mut self.probes)
            .into_iter()
            .filter_map(|probe| {
                let mut left = probe.signals().filter(|signal| !gone(signal));
                let signal = left.next()?;
                Some(Probe {
                    signal,
                    also: left.next(),
                    ..probe
                })
            })
            .collect();
    }

    /// Takes all probes out of the plan; `reason` is why. Signals that are nothing without theirs are off.
    pub fn without_probes(&mut self, reason: &str) {
        for state in &mut self.states {
            let mut signals = self.probes.iter().flat_map(Probe::signals);
            if signals.any(|signal| signal == state.signal) {
                state.coverage.end(reason);
            }
        }
        self.probes.clear();
    }

    /// A signal of one probe: all of it, or off.
    fn set_one(&mut self, signal: &'static str, program: &'static str, site: Result<ProbeSite, String>) {
        let coverage = match site {
            Ok(site) => {
                self.probes.push(Probe {
                    signal,
                    also: None,
                    essential: true,
                    program,
                    site,
                });
                Coverage::Full
            }
            Err(reason) => Coverage::Off(reason),
        };
        self.set(signal, coverage);
    }

    fn set(&mut self, signal: &'static str, coverage: Coverage) {
        self.states.push(SignalState { signal, coverage });
    }

    /// The kernel programs' view of the target.
    pub fn target(&self, slot: u32, slow_wait: u64, slow_poll: u64, slow_request: u64) -> Target {
        Target {
            // Said anew when a window is opened.
            allowance: [0; Plane::COUNT],
            slot,
            flags: self.flags,
            index: 0,
            pad: 0,
            probes_since: 0,
            hooks_since: 0,
            threads_since: 0,
            slow_wait,
            // Said when the runtime's memory is read.
            told_reasons: 0,
            slow_poll,
            slow_request,
            tokio_vtable: self.tokio_vtable,
            tokio_id_offset: self.tokio_id_offset,
            go: self.go,
        }
    }
}
