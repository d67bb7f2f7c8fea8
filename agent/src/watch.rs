//! Watches targets come and go: inspects what the user chose, attaches it, lets it go when it ends.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use agent_common::target::TARGET_LIMIT;
use anyhow::Context as _;
use log::{Level, debug, info, log, warn};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use crate::{
    attach::{
        kernel::{self, HookState},
        maps::TargetMaps,
        plan::{self, Coverage, Plan, SignalState},
        uprobe::{Links, Object},
    },
    budget::{Limits, Meter, Window, window::Windows},
    clock,
    discover::{Process, ProcessError, Selector, process::FileId},
    enrich,
    exit::{Exit, Fatal},
    golang::ProofError,
    inspect::{Image, InspectError},
    room::Host,
    signals,
    target::Target,
};

mod attach;
mod done;
mod early;
mod govern;
mod hooks;
mod images;
mod named;
mod share;
mod together;
mod turn;

pub use govern::Settled;

/// Executables of which is remembered that something was said.
const SAID: usize = 4096;

/// Shortest windows: of probes, which take some 10 ms each to attach; of hooks, long enough for most requests.
const SHORTEST_PROBES: Duration = Duration::from_millis(50);
const SHORTEST_HOOKS: Duration = Duration::from_millis(250);

/// Thresholds and choices of the user.
#[derive(Clone, Debug)]
pub struct Options {
    pub selector: Selector,
    pub without: Vec<String>,
    /// ns
    pub slow_wait: u64,
    pub slow_poll: u64,
    pub slow_request: u64,
    /// None: plane 2 stays attached, whatever it costs.
    pub limits: Option<Limits>,
    /// What all targets together may cost, cores.
    pub host: Option<f64>,
}

/// The targets, and what it takes to make a process one.
pub struct Watch {
    pub windows: Windows,
    maps: TargetMaps,
    pub meter: Meter,
    options: Options,
    /// What the host's cores do.
    host: Host,
    /// Plane 1, by signal.
    pub hooks: Vec<HookState>,
    hook_set: hooks::HookSet,
    pub targets: HashMap<u32, Target>,
    /// Pids by slot.
    by_slot: HashMap<u32, u32>,
    next_slot: u32,
    early: early::Early,
    /// Indices of targets in the map of hits that nobody uses.
    free: Vec<u32>,
    pub images: images::Images,
    /// Executables of which was said that they are watched in part, or not.
    said: HashSet<FileId>,
    watch_to_pipeline: mpsc::Sender<u32>,
    /// Targets that ended.
    pub ended: usize,
    /// The part of the budget that the agent's own limits leave; at 0 no new target is taken either.
    pub allowed: f64,
}

impl Watch {
    /// A watch without targets; `watch_to_pipeline` gets the slots of targets that end.
    pub fn new(
        object: Object,
        maps: TargetMaps,
        meter: Meter,
        mut hooks: Vec<HookState>,
        options: Options,
        watch_to_pipeline: mpsc::Sender<u32>,
    ) -> Self {
        let hook_set = hooks::HookSet::new(&mut hooks, options.limits.is_none());
        Self {
            windows: Windows::new(object),
            hook_set,
            maps,
            meter,
            options,
            host: Host::default(),
            hooks,
            targets: HashMap::new(),
            by_slot: HashMap::new(),
            next_slot: 1,
            early: early::Early::default(),
            free: (1..TARGET_LIMIT).rev().collect(),
            images: images::Images::new(),
            said: HashSet::new(),
            watch_to_pipeline,
            ended: 0,
            allowed: 1.0,
        }
    }

    /// The target of an event.
    pub fn by_slot(&mut self, slot: u32) -> Option<&mut Target> {
        let pid = self.by_slot.get(&slot)?;
        self.targets.get_mut(pid).filter(|target| target.slot == slot)
    }

    /// Whether the user named the process of a target: by pid, executable or name.
    pub fn names(&self, target: &Target) -> bool {
        let selector = &self.options.selector;
        selector.is_explicit() && selector.matches(&target.process)
    }

    /// Looks at every process there is. A process named by its pid must be there and be of use, or the run ends.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        for pid in self.options.selector.pids.clone() {
            self.admit_named(pid)?;
        }
        for process in Process::all().map_err(|error| Fatal::new(Exit::Failed, error))? {
            self.consider(process);
        }
        // Without a target nobody wants them.
        self.hook_set.turn(&self.windows);
        Ok(())
    }

    /// A process became another program: what it was is let go, what it is now is looked at.
    pub fn execed(&mut self, pid: u32) {
        if let Some(target) = self.targets.get(&pid) {
            let slot = target.slot;
            self.let_go(slot);
        }
        match Process::read(pid) {
            Ok(process) => self.arrived(process),
            Err(error) => {
                self.early.forget(pid);
                debug!("new process {pid}: {error}");
            }
        }
    }

    /// A new process, while events come in: what it runs is inspected beside them.
    fn arrived(&mut self, process: Process) {
        if self.targets.contains_key(&process.pid) || !self.options.selector.matches(&process) {
            return;
        }
        match self.images.is_known(&process) {
            Ok(true) => self.consider(process),
            Ok(false) => {}
            Err(error) => debug!("{error}"),
        }
    }

    /// Admits a process that the user chose and that is of use; says why not in the log.
    fn consider(&mut self, process: Process) {
        if process.pid == std::process::id() || self.targets.contains_key(&process.pid) {
            return;
        }
        if !self.options.selector.matches(&process) {
            return;
        }
        let pid = process.pid;
        let explicit = self.options.selector.is_explicit();
        match self.inspect(&process) {
            Ok(Some(image)) => {
                if let Err(error) = self.admit(process, Some(image), None) {
                    warn!("process {pid}: {error:#}");
                }
            }
            Ok(None) | Err(Refused::Inspect(InspectError::NotElf)) => {
                if explicit {
                    self.consider_host(process);
                }
            }
            Err(Refused::Inspect(error)) => {
                let level = self.once(&process);
                log!(level, "process {pid} ({}) is left out: {error}", process.exe.display());
            }
            Err(Refused::Process(error)) => debug!("{error}"),
        }
    }

    fn inspect(&mut self, process: &Process) -> Result<Option<Arc<Image>>, Refused> {
        let inspected = self.images.of(process).map_err(Refused::Process)?;
        inspected.map_err(Refused::Inspect)
    }

    /// An executable is known now: the processes that run it are looked at.
    pub fn looked(&mut self, looked: images::Looked) {
        for pid in self.images.looked(looked) {
            if let Ok(process) = Process::read(pid) {
                self.consider(process);
            }
        }
    }

    /// How loud to say something of a process' executable: once as a warning, as a compiler may start by the hundred.
    fn once(&mut self, process: &Process) -> Level {
        if self.said.len() == SAID {
            self.said.clear();
        }
        match process.exe_id() {
            Ok(id) if !self.said.insert(id) => Level::Debug,
            _ => Level::Warn,
        }
    }

    fn admit(
        &mut self,
        process: Process,
        image: Option<Arc<Image>>,
        error: Option<InspectError>,
    ) -> anyhow::Result<()> {
        if self.allowed == 0.0 {
            anyhow::bail!("left out: the agent is at its own limits (--limit-cpu, --limit-memory)");
        }
        let Some(index) = self.free.last().copied() else {
            anyhow::bail!("left out: {} targets are watched already", self.targets.len());
        };
        if process.is_replaced() {
            info!(
                "process {}: its executable was replaced or removed since it started; the one that runs is read",
                process.pid
            );
        }
        let pidfd = process.pidfd()?;
        let bias = match image.as_deref() {
            Some(Image::Go(image)) => process.bias(&image.elf)?,
            Some(Image::Tokio(image)) => process.bias(&image.elf)?,
            None => 0,
        };
        let mut plan = image
            .as_deref()
            .map_or_else(Plan::default, |image| plan::plan(image, bias, &self.options.without));
        if let Some(reason) = self.windows.object().without_uprobes() {
            plan.without_probes(reason);
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let resource = Arc::new(enrich::resource(&process, image.as_deref()));
        // A Go binary of which too little is known is recognised all the same.
        let error = error.or_else(|| go_error(image.as_deref()?));
        let mut error = error.map(|error| error.to_string());
        let go = self.open_runtime(process.pid, image.as_deref(), bias);
        if matches!(go, Err(ProofError::NotStarted)) && self.early.wait(process.pid) {
            return Ok(());
        }
        self.early.forget(process.pid);
        let go = go.unwrap_or_else(|unproved| {
            let reason = unproved.to_string();
            plan.without_go(&reason);
            error = Some(reason);
            None
        });
        if let Some(error) = &error {
            let level = self.once(&process);
            log!(
                level,
                "process {} ({}): {error}. Its sockets and threads are watched, its runtime is not",
                process.pid,
                process.exe.display()
            );
        }
        let mut target = Target::new(process, slot, resource, clock::now());
        target.bias = bias;
        let runtime = error.map(|error| SignalState {
            signal: "runtime",
            coverage: Coverage::Off(error),
        });
        let quota = signals::process::quota::state(target.process.pid, &self.options.without);
        target.planned = std::mem::take(&mut plan.states);
        target.planned.extend(runtime);
        target.planned.extend(kernel::states(&self.hooks));
        target.planned.push(quota);
        target.restate();
        target.futures = plan.futures.clone();
        target.go = go;
        target.image = image;
        target.open_exe()?;
        self.meter
            .clear(index)
            .context("cannot set the target's hits to nothing")?;
        if let Err(error) = self.attach(&mut target, &plan, index) {
            self.unknow(target.process.pid, slot);
            return Err(error);
        }
        let pid = target.process.pid;
        self.free.pop();
        self.by_slot.insert(slot, pid);
        if target.probes.probes.is_empty() {
            govern::announce(&target);
        } else {
            self.open_probes(&mut target);
        }
        self.targets.insert(pid, target);
        self.await_end(slot, pidfd);
        Ok(())
    }

    fn await_end(&self, slot: u32, pidfd: OwnedFd) {
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
            let _ = watch_to_pipeline.send(slot).await;
        });
    }

    /// Stops watching; detaching waits for the kernel, so it happens aside. The target is given back for its last words.
    pub fn let_go(&mut self, slot: u32) -> Option<Target> {
        let pid = self.by_slot.remove(&slot)?;
        let mut target = self.targets.remove(&pid)?;
        for links in [&mut target.links, &mut target.probes.links] {
            self.windows.detach(std::mem::take(links));
        }
        self.unknow(pid, slot);
        self.free.push(target.known.index);
        self.ended += 1;
        Some(target)
    }

    /// Makes the kernel side forget a process.
    fn unknow(&mut self, pid: u32, slot: u32) {
        if let Err(error) = self.maps.dismiss(pid) {
            warn!("process {pid}: cannot tell the kernel side that it is gone: {error}");
        }
        self.maps.forget(slot);
        self.hook_set.release(slot, &self.windows);
    }

    /// Detaches everything, and waits for it.
    pub async fn close(mut self) {
        while self.targets.values().any(|target| target.probes.window == Window::Busy) {
            let Some(done) = self.windows.done.recv().await else {
                break;
            };
            self.done(done);
        }
        let links: Vec<Links> = self
            .targets
            .values_mut()
            .flat_map(|target| {
                [
                    std::mem::take(&mut target.links),
                    std::mem::take(&mut target.probes.links),
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

enum Refused {
    Process(ProcessError),
    Inspect(InspectError),
}

/// Why nothing of a Go runtime can be read.
fn go_error(image: &Image) -> Option<InspectError> {
    match image {
        Image::Go(image) => image.offsets.as_ref().err().or(image.globals.as_ref().err()).cloned(),
        Image::Tokio(_) => None,
    }
}
