//! The attach plan: probes, and the coverage of each signal. `signals::plan` makes it from what was found in a binary.

use std::collections::HashMap;

use agent_common::{hits::Plane, target::Target};

use crate::{
    inspect::{ArgLocation, ProbeSite, SiteError},
    signal::{Coverage, SignalState},
};

/// One probe of the plan.
#[derive(Clone, Debug)]
pub struct Probe {
    pub signal: &'static str,
    /// Another signal that needs it, and keeps it where the first is left out.
    pub also: Option<&'static str>,
    /// Whether the signal does not work without it.
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

/// Full coverage, except for what is `missing`.
pub fn coverage(missing: Vec<String>) -> Coverage {
    if missing.is_empty() {
        Coverage::Full
    } else {
        Coverage::Partial(missing.join("; "))
    }
}

/// A site whose arguments are in `registers`, or why there is none.
pub fn usable(site: Option<&Result<ProbeSite, SiteError>>, registers: &[ArgLocation]) -> Result<ProbeSite, String> {
    found(site).and_then(|site| in_registers(site, registers))
}

/// A site, or why there is none.
pub fn found(site: Option<&Result<ProbeSite, SiteError>>) -> Result<&ProbeSite, String> {
    let site = site.ok_or("not looked for in this binary")?;
    site.as_ref().map_err(ToString::to_string)
}

/// The programs read their arguments from these registers; a site where they have moved elsewhere is not used.
fn in_registers(site: &ProbeSite, registers: &[ArgLocation]) -> Result<ProbeSite, String> {
    if site.args == registers {
        Ok(site.clone())
    } else {
        Err(format!(
            "{}: its arguments are not in their registers at the only usable instruction",
            site.function
        ))
    }
}

impl Plan {
    /// Drops the probes of some signals, except for those that another signal needs too.
    pub fn drop_probes(&mut self, gone: impl Fn(&str) -> bool) {
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

    /// Removes all probes from the plan; `reason` is why. Their signals are off.
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
    pub fn set_one(&mut self, signal: &'static str, program: &'static str, site: Result<ProbeSite, String>) {
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

    /// Says how much of a signal there is.
    pub fn set(&mut self, signal: &'static str, coverage: Coverage) {
        self.states.push(SignalState { signal, coverage });
    }

    /// The kernel programs' view of the target; its signals add their part, such as thresholds.
    pub fn target(&self, id: u32, index: u32, pid: u32) -> Target {
        Target {
            // Said anew when a window is opened.
            allowance: [0; Plane::COUNT],
            id,
            flags: self.flags,
            index,
            pid,
            probes_since: 0,
            sockets_since: 0,
            threads_since: 0,
            run_queue_since: 0,
            slow_wait: 0,
            reported_reasons: 0,
            slow_poll: 0,
            slow_request: 0,
            tokio_vtable: self.tokio_vtable,
            tokio_id_offset: self.tokio_id_offset,
            pad_to_line: 0,
            go: self.go,
            pad_to_end: 0,
        }
    }
}
