//! Watches targets come and go: inspects what the user chose, attaches it, lets it go when it ends.

use std::{collections::HashMap, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use anyhow::Context as _;
use log::{info, log, warn};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use crate::{
    attach::{
        kernel::{self, HookState},
        maps::TargetMaps,
        plan::Plan,
        uprobe::{Links, Object},
        windows::Windows,
    },
    budget::Limits,
    capacity::Host,
    clock,
    discover::{Process, Selector},
    enrich,
    inspect::{Image, InspectError},
    overhead::Meter,
    runtime::ProofError,
    signal::{self, Coverage, SignalState},
    signals::{self, State, Thresholds},
    target::Target,
};

mod arrive;
mod attach;
mod clear;
mod done;
mod early;
mod govern;
mod hooks;
mod images;
mod lifecycle;
#[cfg(test)]
mod lifecycle_tests;
mod named;
mod patience;
mod places;
mod plane_state;
mod retire;
mod share;
mod together;
mod turn;
mod watched;

pub use arrive::Looked;
pub use done::note_memory;
pub use govern::{LONG, Settled};
pub use lifecycle::{Lifecycle, Standing, Targets};
pub use places::Places;
pub use plane_state::{Bound, Overhead, PlaneState, Window};
pub use retire::{Retired, Why};
pub use watched::{Failures, Watched};

/// How long the end of a run waits for probes that are being put in or taken out.
const CLOSING: Duration = Duration::from_secs(30);
/// Shortest windows: of probes, which take some 10 ms each to attach; of hooks, long enough for most requests.
const SHORTEST_PROBES: Duration = Duration::from_millis(50);
const SHORTEST_HOOKS: Duration = Duration::from_millis(250);

/// Thresholds and choices of the user.
#[derive(Clone, Debug)]
pub struct Options {
    pub selector: Selector,
    pub without: Vec<String>,
    pub thresholds: Thresholds,
    /// None: plane 2 stays attached, whatever it costs.
    pub limits: Option<Limits>,
    /// What all targets together may cost, cores.
    pub host: Option<f64>,
}

/// The targets, and what it takes to make a process one. Which ones become targets is [`Lifecycle`]'s to say.
pub struct Watch {
    pub windows: Windows,
    /// Why no uprobe is to be had on this kernel.
    without_uprobes: Option<String>,
    maps: TargetMaps,
    pub meter: Meter,
    options: Options,
    /// What the host's cores do.
    host: Host,
    /// Plane 1, by signal.
    pub hooks: Vec<HookState>,
    hook_set: hooks::HookSet,
    pub targets: HashMap<u32, Watched>,
    /// Pids by target id.
    by_id: HashMap<u32, u32>,
    /// Those that ended, until their last figures are read.
    retired: Vec<Retired>,
    leaving: retire::Leaving,
    next_id: u32,
    pub places: Places,
    watch_to_pipeline: mpsc::Sender<u32>,
    /// Targets that ended.
    pub ended: usize,
}

impl Watch {
    /// A watch without targets; `watch_to_pipeline` gets the ids of targets that end.
    pub fn new(
        object: Object,
        maps: TargetMaps,
        meter: Meter,
        mut hooks: Vec<HookState>,
        options: Options,
        watch_to_pipeline: mpsc::Sender<u32>,
    ) -> Self {
        let without_uprobes = object.without_uprobes().map(str::to_owned);
        let hook_set = hooks::HookSet::new(&mut hooks, options.limits.is_none());
        Self {
            windows: Windows::new(object),
            without_uprobes,
            hook_set,
            maps,
            meter,
            options,
            host: Host::default(),
            hooks,
            targets: HashMap::new(),
            by_id: HashMap::new(),
            retired: Vec::new(),
            leaving: retire::Leaving::default(),
            next_id: 1,
            places: Places::default(),
            watch_to_pipeline,
            ended: 0,
        }
    }

    /// The target of an event, also one that has just ended.
    pub fn by_id(&mut self, target_id: u32) -> Option<&mut Watched> {
        match self.by_id.get(&target_id) {
            Some(pid) => self
                .targets
                .get_mut(pid)
                .filter(|watched| watched.target.id == target_id),
            None => {
                let mut retired = self.retired.iter_mut().map(|retired| &mut retired.watched);
                retired.find(|watched| watched.target.id == target_id)
            }
        }
    }

    /// How often a map of the kernel side could not be read or changed since the last call, and why the last time.
    pub fn map_failures(&self) -> Option<(u64, String)> {
        self.maps.failed()
    }

    /// Every target, also those that have just ended.
    pub fn all(&self) -> impl Iterator<Item = &Watched> {
        let retired = self.retired.iter().map(|retired| &retired.watched);
        self.targets.values().chain(retired)
    }

    /// Everybody who is there was looked at: without a target nobody wants the hooks.
    pub fn scanned(&mut self) {
        self.hook_set.turn(&self.windows);
    }

    /// Whether the user named the process of a target: by pid, executable or name.
    pub fn names(&self, watched: &Watched) -> bool {
        let selector = &self.options.selector;
        selector.is_explicit() && selector.matches(&watched.target.process)
    }

    /// Whether the user does not get what was asked for: of a process that was named some signal, of others any of one of them. A process
    /// that happens to run beside those that are seen is reported, and no failure.
    pub fn is_dark(&self) -> bool {
        let is_dark = |watched: &Watched| signal::is_dark(&watched.state.states);
        let mut targets = self.targets.values();
        if self.options.selector.is_explicit() {
            return targets.any(|watched| self.names(watched) && is_dark(watched));
        }
        !self.targets.is_empty() && targets.all(is_dark)
    }

    /// Until its handle is aborted, as the process may outlive the target.
    fn await_end(&self, target_id: u32, pidfd: OwnedFd) -> AbortHandle {
        let watch_to_pipeline = self.watch_to_pipeline.clone();
        // SAFETY: an OwnedFd gives the same open descriptor for as long as it lives, here inside the AsyncFd.
        #[expect(unsafe_code, reason = "tokio has no safe way to register an OwnedFd")]
        let pidfd = unsafe { AsyncFd::register(pidfd) };
        tokio::spawn(async move {
            match pidfd {
                Ok(pidfd) => drop(pidfd.readable().await),
                Err(error) => warn!("cannot wait for a process' end: {}", error.into_parts().1),
            }
            // The pipeline is gone only when the agent ends.
            let _ = watch_to_pipeline.send(target_id).await;
        })
        .abort_handle()
    }

    /// Detaches everything, and waits for it.
    pub async fn close(mut self) {
        let busy = |watch: &Self| {
            watch
                .targets
                .values()
                .any(|watched| watched.probes.window == Window::Busy)
        };
        let until = Instant::now() + CLOSING;
        while busy(&self) {
            let Ok(Some(done)) = timeout_at(until, self.windows.done.recv()).await else {
                warn!(
                    "not waiting any longer for probes that are being attached or detached: the kernel detaches them when this process ends"
                );
                break;
            };
            self.done(done);
        }
        let links: Vec<Links> = self
            .targets
            .values_mut()
            .flat_map(|watched| {
                [
                    std::mem::take(&mut watched.links),
                    std::mem::take(&mut watched.probes.links),
                ]
            })
            .collect();
        let detached: Vec<_> = links.into_iter().map(|links| self.windows.detach(links)).collect();
        for task in detached {
            // A panic while dropping would have nothing left to undo.
            let _ = task.await;
        }
    }
}

impl Targets for Watch {
    fn standing(&self, pid: u32) -> Option<Standing<'_>> {
        self.targets.get(&pid).map(|watched| Standing {
            target_id: watched.target.id,
            process: &watched.target.process,
            since: watched.target.since,
        })
    }

    fn is_leaving(&mut self, pid: u32) -> bool {
        self.leaving.is_leaving(pid)
    }

    fn admit(
        &mut self,
        life: &mut Lifecycle,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
    ) -> anyhow::Result<()> {
        let index = self.places.next(self.targets.len())?;
        let pidfd = process.pidfd()?;
        let bias = match image.as_deref() {
            Some(image) => process.bias(image.elf())?,
            None => 0,
        };
        let mut state = State::default();
        let opened = image.as_deref().map_or(Ok(()), |image| {
            signals::plan::open(image, process.pid, bias, &mut state)
        });
        if matches!(opened, Err(ProofError::NotStarted)) && life.early.wait(process.pid) {
            return Ok(());
        }
        life.early.forget(process.pid);
        let named = self.options.selector.pids.contains(&process.pid);
        if let Err(ProofError::Memory(error)) = &opened
            && error.kind() == io::ErrorKind::TimedOut
            && !named
        {
            anyhow::bail!("not watched until its memory can be read: {error}");
        }
        let mut plan = image.as_deref().map_or_else(Plan::default, |image| {
            signals::plan::plan(image, bias, &self.options.without)
        });
        if let Some(reason) = &self.without_uprobes {
            plan.without_probes(reason);
        }
        let target_id = self.next_id;
        self.next_id += 1;
        let resource = enrich::resource(&process, image.as_deref()).context("cannot read its environment")?;
        // A binary of which too little is known is recognised all the same.
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
        if let Some(error) = &error {
            let level = life.while_alive(&process, error);
            log!(
                level,
                "process {} ({}): {error}. Its sockets and threads are watched, its runtime is not",
                process.pid,
                process.exe.display()
            );
        }
        let mut target = Target::new(process, target_id, resource.into(), clock::now());
        target.bias = bias;
        let runtime = error.map(|error| SignalState {
            signal: "runtime",
            coverage: Coverage::Off(error),
        });
        let of_process = signals::plan::of_process(target.process.pid, &self.options.without);
        target.futures = plan.futures.clone();
        target.image = image;
        target.open_exe()?;
        state.planned = std::mem::take(&mut plan.states);
        state.planned.extend(runtime);
        state.planned.extend(kernel::states(&self.hooks));
        state.planned.extend(of_process);
        let mut watched = Watched::new(target, state);
        watched.restate();
        self.meter
            .clear(index)
            .context("cannot reset the target's hit counts")?;
        self.places.take();
        if let Err(error) = self.attach(&mut watched, &plan, index) {
            watched.known.index = index;
            self.dismiss(watched, Why::Refused);
            return Err(error);
        }
        let pid = watched.target.process.pid;
        self.by_id.insert(target_id, pid);
        if watched.probes.probes.is_empty() {
            govern::announce(&watched);
        } else {
            self.open_probes(&mut watched);
        }
        watched.end = Some(self.await_end(target_id, pidfd));
        self.targets.insert(pid, watched);
        Ok(())
    }

    fn retire(&mut self, target_id: u32, why: Why) -> Vec<Settled> {
        Self::retire(self, target_id, why).unwrap_or_default()
    }
}
