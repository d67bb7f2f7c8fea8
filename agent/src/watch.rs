//! Watches targets come and go: inspects what the user chose, attaches it, lets it go when it ends.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
};

use anyhow::Context as _;
use aya::Ebpf;
use log::{debug, info, warn};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use crate::{
    attach::{
        kernel::HookState,
        maps::TargetMaps,
        plan::{self, Coverage, Plan, SignalState},
        uprobe::{self, Links},
    },
    clock,
    discover::{Process, ProcessError, Selector, process::FileId},
    enrich,
    exit::{Exit, Fatal, of_process},
    golang::GoRuntime,
    inspect::{self, Image, InspectError},
    memory::Memory,
    signals,
    target::{GoState, Target},
};

/// Inspected executables that are remembered.
const CACHED: usize = 256;
/// Targets at once: the size of the kernel's map.
const LIMIT: usize = 1024;

/// Thresholds and choices of the user.
#[derive(Clone, Debug)]
pub struct Options {
    pub selector: Selector,
    pub without: Vec<String>,
    /// ns
    pub slow_wait: u64,
    pub slow_poll: u64,
    pub slow_request: u64,
}

/// What inspecting an executable gave.
type Inspected = Result<Option<Arc<Image>>, InspectError>;

/// The targets, and what it takes to make a process one.
pub struct Watch {
    ebpf: Ebpf,
    maps: TargetMaps,
    options: Options,
    /// Plane 1, by signal.
    pub hooks: Vec<HookState>,
    pub targets: HashMap<u32, Target>,
    /// Pids by slot.
    by_slot: HashMap<u32, u32>,
    next_slot: u32,
    images: HashMap<FileId, Inspected>,
    cached: VecDeque<FileId>,
    watch_to_pipeline: mpsc::Sender<u32>,
    /// Targets that ended.
    pub ended: usize,
}

impl Watch {
    /// A watch without targets; `watch_to_pipeline` gets the slots of targets that end.
    pub fn new(
        ebpf: Ebpf,
        maps: TargetMaps,
        hooks: Vec<HookState>,
        options: Options,
        watch_to_pipeline: mpsc::Sender<u32>,
    ) -> Self {
        Self {
            ebpf,
            maps,
            options,
            hooks,
            targets: HashMap::new(),
            by_slot: HashMap::new(),
            next_slot: 1,
            images: HashMap::new(),
            cached: VecDeque::new(),
            watch_to_pipeline,
            ended: 0,
        }
    }

    /// The target of an event.
    pub fn by_slot(&mut self, slot: u32) -> Option<&mut Target> {
        let pid = self.by_slot.get(&slot)?;
        self.targets.get_mut(pid).filter(|target| target.slot == slot)
    }

    /// Looks at every process there is. A process named by its pid must be there and be of use, or the run ends.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        for pid in self.options.selector.pids.clone() {
            self.admit_named(pid)?;
        }
        for process in Process::all().map_err(|error| Fatal::new(Exit::Failed, error))? {
            self.consider(process);
        }
        Ok(())
    }

    /// A process became another program: what it was is let go, what it is now is looked at.
    pub fn execed(&mut self, pid: u32) {
        if let Some(target) = self.targets.get(&pid) {
            let slot = target.slot;
            self.let_go(slot);
        }
        match Process::read(pid) {
            Ok(process) => self.consider(process),
            Err(error) => debug!("new process {pid}: {error}"),
        }
    }

    fn admit_named(&mut self, pid: u32) -> anyhow::Result<()> {
        let process = Process::read(pid).map_err(|error| Fatal::new(of_process(&error), error))?;
        let image = self.inspect(&process);
        let (image, notes) = match image {
            Ok(Some(image)) => (Some(image), None),
            Ok(None) => {
                let message = format!(
                    "process {pid} ({}) is neither a Go nor a tokio program that can be recognised",
                    process.exe.display()
                );
                return Err(Fatal::new(Exit::NotATarget, message).into());
            }
            // Ours but not readable: sockets and threads can be watched all the same.
            Err(Refused::Inspect(error)) if !matches!(error, InspectError::NotElf) => (None, Some(error)),
            Err(Refused::Inspect(error)) => {
                return Err(Fatal::new(
                    Exit::NotATarget,
                    format!("process {pid} ({}): {error}", process.exe.display()),
                )
                .into());
            }
            Err(Refused::Process(error)) => return Err(Fatal::new(of_process(&error), error).into()),
        };
        if let Some(error) = &notes {
            warn!(
                "process {pid} ({}): {error}. Its sockets and threads are watched, its runtime is not",
                process.exe.display()
            );
        }
        self.admit(process, image, notes)
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
                    info!(
                        "process {pid} ({}) was named but is neither Go nor tokio",
                        process.exe.display()
                    );
                }
            }
            Err(Refused::Inspect(error)) => warn!("process {pid} ({}) is left out: {error}", process.exe.display()),
            Err(Refused::Process(error)) => debug!("{error}"),
        }
    }

    fn inspect(&mut self, process: &Process) -> Result<Option<Arc<Image>>, Refused> {
        let id = process.exe_id().map_err(Refused::Process)?;
        if let Some(known) = self.images.get(&id) {
            return known.clone().map_err(Refused::Inspect);
        }
        let bytes = process.exe_bytes().map_err(Refused::Process)?;
        let inspected: Inspected = match inspect::inspect(&bytes) {
            Err(InspectError::NotElf) => Ok(None),
            outcome => outcome.map(|image| image.map(Arc::new)),
        };
        if self.cached.len() == CACHED
            && let Some(oldest) = self.cached.pop_front()
        {
            self.images.remove(&oldest);
        }
        self.cached.push_back(id);
        self.images.insert(id, inspected.clone());
        inspected.map_err(Refused::Inspect)
    }

    fn admit(
        &mut self,
        process: Process,
        image: Option<Arc<Image>>,
        error: Option<InspectError>,
    ) -> anyhow::Result<()> {
        if self.targets.len() == LIMIT {
            anyhow::bail!("left out: {LIMIT} targets are watched already");
        }
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
        let plan = image
            .as_deref()
            .map_or_else(Plan::default, |image| plan::plan(image, bias, &self.options.without));
        let slot = self.next_slot;
        self.next_slot += 1;
        let resource = Arc::new(enrich::resource(&process, image.as_deref()));
        // A Go binary without DWARF is recognised all the same, and of no more use than a stripped one.
        let error = error.or_else(|| {
            let error = go_error(image.as_deref()?)?;
            warn!(
                "process {} ({}): {error}. Its sockets and threads are watched, its runtime is not",
                process.pid,
                process.exe.display()
            );
            Some(error)
        });
        let mut target = Target::new(process, slot, resource, clock::now());
        target.bias = bias;
        target.states = plan.states.clone();
        if let Some(error) = error {
            target.states.push(SignalState {
                signal: "runtime",
                coverage: Coverage::Off(error.to_string()),
            });
        }
        target.states.extend(self.hooks.iter().skip(1).map(HookState::coverage));
        target.futures = plan.futures.clone();
        target.go = self.open_runtime(&target, image.as_deref(), bias);
        target.image = image;
        self.attach(&mut target, &plan)?;
        let (pid, name) = (
            target.process.pid,
            target.resource.get("service.name").unwrap_or_default().to_owned(),
        );
        info!("watching {name} (pid {pid}): {} probes", target.links.len());
        self.by_slot.insert(slot, pid);
        self.targets.insert(pid, target);
        self.await_end(slot, pidfd);
        Ok(())
    }

    fn open_runtime(&self, target: &Target, image: Option<&Image>, bias: u64) -> Option<GoState> {
        let Some(Image::Go(image)) = image else { return None };
        if self
            .options
            .without
            .iter()
            .any(|name| name == signals::go::runtime::NAME)
        {
            return None;
        }
        let (Ok(globals), Ok(offsets)) = (&image.globals, &image.offsets) else {
            return None;
        };
        let runtime = Memory::open(target.process.pid)
            .and_then(|memory| GoRuntime::new(memory, bias, globals.clone(), offsets.clone()));
        match runtime {
            Ok(runtime) => Some(GoState {
                bounds: runtime.bounds().into(),
                runtime,
                latest: None,
            }),
            Err(error) => {
                warn!(
                    "process {}: cannot read the Go runtime's memory: {error}",
                    target.process.pid
                );
                None
            }
        }
    }

    /// First what the programs must know, then the probes: no probe fires for a process that is not known.
    fn attach(&mut self, target: &mut Target, plan: &Plan) -> anyhow::Result<()> {
        let pid = target.process.pid;
        let Options {
            slow_wait,
            slow_poll,
            slow_request,
            ..
        } = self.options;
        self.maps
            .set_types(target.slot, &plan.types)
            .context("cannot tell the kernel side of the tasks' types")?;
        self.maps
            .set_sites(target.slot, &plan.sites)
            .context("cannot tell the kernel side of the probes")?;
        self.maps
            .admit(pid, &plan.target(target.slot, slow_wait, slow_poll, slow_request))
            .context("cannot tell the kernel side of the target")?;
        // Only now: a process that has just started may begin to listen at any moment, and either side sees it.
        let ports = target.process.listening_ports().unwrap_or_default();
        self.maps
            .listens(pid, ports)
            .context("cannot tell the kernel side of the target's ports")?;
        for probe in &plan.probes {
            if let Err(error) = uprobe::attach(&mut self.ebpf, &target.process, probe, &mut target.links) {
                let reason = error.to_string();
                warn!("process {pid}: {reason}");
                if let Some(state) = target.states.iter_mut().find(|state| state.signal == probe.signal) {
                    state.coverage = match &state.coverage {
                        Coverage::Partial(before) => Coverage::Partial(format!("{before}; {reason}")),
                        _ => Coverage::Partial(reason),
                    };
                }
            }
        }
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
        if let Err(error) = self.maps.dismiss(pid) {
            warn!("process {pid}: cannot tell the kernel side that it is gone: {error}");
        }
        let links: Links = std::mem::take(&mut target.links);
        tokio::task::spawn_blocking(move || drop(links));
        self.maps.forget(pid, slot);
        self.ended += 1;
        Some(target)
    }

    /// Detaches everything, and waits for it.
    pub async fn close(mut self) {
        let links: Vec<Links> = self
            .targets
            .values_mut()
            .map(|target| std::mem::take(&mut target.links))
            .collect();
        let detached = links
            .into_iter()
            .map(|links| tokio::task::spawn_blocking(move || drop(links)));
        for task in detached.collect::<Vec<_>>() {
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
