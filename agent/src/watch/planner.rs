//! Prepares a process to become a target: reads what its signals need, and plans what to attach. Nothing is attached yet.

use std::{io, os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use log::info;

use super::{Options, Watched};
use crate::{
    attach::plan::Plan,
    clock,
    discover::{Process, Selector},
    enrich,
    inspect::{Image, InspectError},
    looks::Looks,
    model::Resource,
    runtime::ProofError,
    signal::{Coverage, SignalState},
    signals::{self, State, Thresholds},
    target::Target,
};

/// The user's choices for targets.
pub(super) struct Planner {
    selector: Selector,
    without: Vec<String>,
    thresholds: Thresholds,
    looks: Arc<Looks>,
    /// Why this kernel permits no uprobe.
    without_uprobes: Option<String>,
}

/// A process that can become a target.
pub(super) struct Candidate {
    process: Process,
    pidfd: OwnedFd,
    image: Option<Arc<dyn Image>>,
    bias: u64,
    resource: Arc<Resource>,
    state: State,
    plan: Plan,
    without_runtime: Option<String>,
}

/// A target to which nothing is attached yet.
pub(super) struct Prepared {
    pub(super) watched: Watched,
    /// What to attach.
    pub(super) plan: Plan,
    /// Reports the end of the process.
    pub(super) pidfd: OwnedFd,
    /// Why its runtime is not observed.
    pub(super) without_runtime: Option<String>,
}

impl Planner {
    pub(super) fn new(options: &Options, without_uprobes: Option<String>) -> Self {
        Self {
            selector: options.selector.clone(),
            without: options.without.clone(),
            thresholds: options.thresholds,
            looks: options.looks.clone(),
            without_uprobes,
        }
    }

    /// Whether the user requested a process by pid, executable or name.
    pub(super) fn is_requested(&self, process: &Process) -> bool {
        self.has_requests() && self.selector.matches(process)
    }

    /// Whether the user requested any.
    pub(super) fn has_requests(&self) -> bool {
        self.selector.is_explicit()
    }

    /// Prepares a process. With `wait_for_start`, None for a process whose runtime has not started.
    pub(super) fn prepare(
        &self,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
        wait_for_start: bool,
    ) -> anyhow::Result<Option<Candidate>> {
        let pidfd = process.pidfd()?;
        let bias = match image.as_deref() {
            Some(image) => process.bias(image.elf())?,
            None => 0,
        };
        let mut state = State {
            looks: Some(self.looks.clone()),
            ..State::default()
        };
        let opened = image.as_deref().map_or(Ok(()), |image| {
            signals::plan::open(image, process.pid, bias, &mut state)
        });
        if matches!(opened, Err(ProofError::NotStarted)) && wait_for_start {
            return Ok(None);
        }
        let is_requested_by_pid = self.selector.pids.contains(&process.pid);
        if let Err(ProofError::Memory(error)) = &opened
            && error.kind() == io::ErrorKind::TimedOut
            && !is_requested_by_pid
        {
            anyhow::bail!("not watched until its memory can be read: {error}");
        }
        let mut plan = image
            .as_deref()
            .map_or_else(Plan::default, |image| signals::plan::plan(image, bias, &self.without));
        if let Some(reason) = &self.without_uprobes {
            plan.without_probes(reason);
        }
        let resource = enrich::resource(&process, image.as_deref()).context("cannot read its environment")?;
        // An executable may be recognised although too little of it can be read.
        let error = error.or_else(|| image.as_deref()?.unreadable().cloned());
        let mut error = error.map(|error| error.to_string());
        if process.is_replaced() {
            info!(
                "process {}: its executable was replaced or removed since it started; whywait reads the one that runs",
                process.pid
            );
        }
        if let (Err(unproved), Some(image)) = (opened, image.as_deref()) {
            let reason = unproved.to_string();
            signals::plan::without_memory(image, &mut plan, &reason);
            error = Some(reason);
        }
        state.planned = std::mem::take(&mut plan.states);
        Ok(Some(Candidate {
            process,
            pidfd,
            image,
            bias,
            resource: resource.into(),
            state,
            plan,
            without_runtime: error,
        }))
    }

    /// Makes a target of a candidate; `hooks` is how much of each hook's signal is available.
    pub(super) fn target(
        &self,
        candidate: Candidate,
        id: u32,
        index: u32,
        hooks: &[SignalState],
    ) -> anyhow::Result<Prepared> {
        let Candidate {
            process,
            pidfd,
            image,
            bias,
            resource,
            mut state,
            plan,
            without_runtime,
        } = candidate;
        let mut target = Target::new(process, id, resource, clock::now());
        target.bias = bias;
        target.futures = plan.futures.clone();
        target.image = image;
        target.open_exe()?;
        state.planned.extend(without_runtime.clone().map(|error| SignalState {
            signal: "runtime",
            coverage: Coverage::Off(error),
        }));
        state.planned.extend_from_slice(hooks);
        state
            .planned
            .extend(signals::plan::of_process(target.process.pid, &self.without));
        let mut watched = Watched::new(target, state);
        watched.restate();
        watched.known = plan.target(id, index, watched.target.process.pid);
        let Watched {
            target, state, known, ..
        } = &mut watched;
        signals::start(target, state, &self.thresholds, known);
        Ok(Prepared {
            watched,
            plan,
            pidfd,
            without_runtime,
        })
    }
}
