//! The attach plan: a pure function from what was found in a binary to probes, and to what each signal will be worth.

mod go;
mod handoff;

use std::collections::HashMap;

use agent_common::{
    hits::Plane,
    target::{IS_TOKIO, Target},
    tokio::{
        poll::BLOCKING,
        wake::{IN_RDI, IN_RDX, IN_RSI, ON_STACK},
    },
};

use crate::{
    inspect::{ArgLocation, HeaderLayout, Image, ProbeSite, SiteError, TaskKind, TokioHook, TokioImage, X86Register},
    signals,
};

/// One probe of the plan.
#[derive(Clone, Debug)]
pub struct Probe {
    pub signal: &'static str,
    /// Program name in the object.
    pub program: &'static str,
    pub site: ProbeSite,
}

/// How much of a signal there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    Full,
    /// Something is missing; the figures say less than they could.
    Partial(String),
    Off(String),
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

/// The plan for a process whose executable is `image` at `bias`, without the signals in `without`.
pub fn plan(image: &Image, bias: u64, without: &[String]) -> Plan {
    let mut plan = match image {
        Image::Go(image) => go::plan(image, bias),
        Image::Tokio(image) => plan_tokio(image, bias),
    };
    plan.probes
        .retain(|probe| !without.iter().any(|name| name == probe.signal));
    for state in &mut plan.states {
        if without.iter().any(|name| name == state.signal) {
            state.coverage = Coverage::Off("left out by --without".to_owned());
        }
    }
    plan
}

fn plan_tokio(image: &TokioImage, bias: u64) -> Plan {
    let mut plan = Plan {
        flags: IS_TOKIO,
        ..Plan::default()
    };
    plan.tokio_vtable = image.header.vtable_offset as u32;
    plan.tokio_id_offset = (HeaderLayout::ID_WORD * 8) as u32;
    for (index, vtable) in image.vtables.iter().enumerate() {
        let id = (index as u32 + 1) | if vtable.kind == TaskKind::Blocking { BLOCKING } else { 0 };
        plan.types.push((vtable.vaddr.wrapping_add(bias), id));
        plan.futures
            .insert(id, vtable.future.label().unwrap_or_else(|| "unknown".to_owned()));
    }
    plan_tokio_poll(image, &mut plan);
    plan_tokio_wake(image, bias, &mut plan);
    plan
}

fn plan_tokio_poll(image: &TokioImage, plan: &mut Plan) {
    let signal = signals::tokio::poll::NAME;
    let mut missing = Vec::new();
    let essential = [
        (TokioHook::PollBegin, "tokio_poll_begin"),
        (TokioHook::PollEndPending, "tokio_poll_end"),
        (TokioHook::PollEndComplete, "tokio_poll_end"),
    ];
    let mut probes = Vec::new();
    for (hook, program) in essential {
        for site in sites(image, hook) {
            match usable(Some(site), &[ArgLocation::Register(X86Register::Rdi)]) {
                Ok(site) => probes.push(Probe { signal, program, site }),
                Err(reason) => return plan.set(signal, Coverage::Off(reason)),
            }
        }
    }
    for site in sites(image, TokioHook::Park) {
        match usable(Some(site), &[]) {
            Ok(site) => probes.push(Probe {
                signal,
                program: "tokio_park",
                site,
            }),
            Err(reason) => missing.push(reason),
        }
    }
    plan.probes.extend(probes);
    let endless = image
        .vtables
        .iter()
        .filter(|vtable| !vtable.calls_poll_end && vtable.kind == TaskKind::Async)
        .count();
    if endless > 0 {
        missing.push(format!(
            "{endless} of {} types of tasks have no visible end of poll (inlined, as with LTO)",
            image.vtables.len()
        ));
    }
    if image.rejected_vtables > 0 {
        missing.push(format!(
            "{} places refer to poll functions but are no task vtable as known",
            image.rejected_vtables
        ));
    }
    plan.set(signal, coverage(missing));
}

fn plan_tokio_wake(image: &TokioImage, bias: u64, plan: &mut Plan) {
    let signal = signals::tokio::wake::NAME;
    // Without the end of the wait there is nothing to measure.
    if !plan.probes.iter().any(|probe| probe.program == "tokio_poll_begin") {
        return plan.set(signal, Coverage::Off("no poll can be seen in this binary".to_owned()));
    }
    let (mut probes, mut missing) = (Vec::new(), Vec::new());
    let hooks = [
        (TokioHook::Schedule, "tokio_schedule"),
        (TokioHook::Yield, "tokio_schedule"),
        (TokioHook::Spawn, "tokio_spawn"),
    ];
    for (hook, program) in hooks {
        for site in sites(image, hook) {
            let found = site
                .as_ref()
                .map_err(ToString::to_string)
                .and_then(|site| Ok((site, place(site)?)));
            match found {
                Ok((site, place)) => {
                    plan.sites.push((site.vaddr.wrapping_add(bias), place));
                    probes.push(Probe {
                        signal,
                        program,
                        site: site.clone(),
                    });
                }
                Err(reason) => missing.push(reason),
            }
        }
    }
    if probes.is_empty() {
        return plan.set(signal, Coverage::Off(missing.join("; ")));
    }
    plan.probes.extend(probes);
    plan.set(signal, coverage(missing));
}

/// Where a site's only argument is, in the kernel side's code.
fn place(site: &ProbeSite) -> Result<u32, String> {
    match site.args.as_slice() {
        [ArgLocation::Register(X86Register::Rdi)] => Ok(IN_RDI),
        [ArgLocation::Register(X86Register::Rsi)] => Ok(IN_RSI),
        [ArgLocation::Register(X86Register::Rdx)] => Ok(IN_RDX),
        [ArgLocation::Stack(offset)] if *offset >= 0 => Ok(ON_STACK | *offset as u32),
        _ => Err(format!(
            "{}: its argument is where no program looks for it",
            site.function
        )),
    }
}

fn sites(image: &TokioImage, hook: TokioHook) -> &[Result<ProbeSite, SiteError>] {
    image.hooks.get(&hook).map(Vec::as_slice).unwrap_or_default()
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
    /// Takes all that hangs on the Go runtime's memory out of the plan; `reason` is why. What was off keeps its own reason.
    pub fn without_go(&mut self, reason: &str) {
        self.flags = 0;
        for signal in [
            signals::go::runtime::NAME,
            signals::go::goroutines::NAME,
            signals::go::gc::NAME,
            signals::go::stw::NAME,
            signals::go::assist::NAME,
            signals::go::sched::NAME,
            signals::go::handoff::NAME,
        ] {
            self.probes.retain(|probe| probe.signal != signal);
            let off = Coverage::Off(reason.to_owned());
            match self.states.iter_mut().find(|state| state.signal == signal) {
                Some(state) if matches!(state.coverage, Coverage::Off(_)) => {}
                Some(state) => state.coverage = off,
                None => self.set(signal, off),
            }
        }
    }

    /// Takes all probes out of the plan; `reason` is why. Signals that are nothing without theirs are off.
    pub fn without_probes(&mut self, reason: &str) {
        for state in &mut self.states {
            if self.probes.iter().any(|probe| probe.signal == state.signal) {
                state.coverage = Coverage::Off(reason.to_owned());
            }
        }
        self.probes.clear();
    }

    /// A signal of one probe: all of it, or off.
    fn set_one(&mut self, signal: &'static str, program: &'static str, site: Result<ProbeSite, String>) {
        let coverage = match site {
            Ok(site) => {
                self.probes.push(Probe { signal, program, site });
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
