//! One watched process: its facts, and what is remembered of it between events. Facts live here, never in statics.

mod cycles;
mod symbols;

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

pub use cycles::Cycles;
use symbols::Known;

use agent_common::{
    go::assist::Assists,
    histogram::Series,
    target::{Made, Over},
    tokio::poll::UNENDED,
};
use tokio::task::AbortHandle;

use crate::{
    attach::{
        plan::{Failure, Probe},
        uprobe::Links,
    },
    budget::{Duty, Guest, Plane, Spent, Worth},
    clock, deadline,
    discover::{Process, ProcessError},
    inspect::{Frame, Image},
    model::{Attribute, Exemplar, MonoNs, Point, PointData, Resource, Span},
    room::Room,
    runtime::go::{GoRuntime, Snapshot},
    signal::SignalState,
    signals::go::origins::Origins,
    signals::{
        self,
        go::{goroutines::Goroutines, sched::Waits, stw::Stops},
        process::quota::Quotas,
    },
};

/// Exemplars kept for a series between two exports.
const EXEMPLARS: usize = 4;

/// A watched process.
pub struct Target {
    pub process: Process,
    /// What it may use; read when a window is opened.
    pub room: Room,
    /// CPU quotas that it is under; None when they are left out.
    pub quotas: Option<Quotas>,
    /// Unique for the agent's life; what the kernel's maps and events carry.
    pub slot: u32,
    /// What its executable is; None when it is of no runtime that is known, and was named by the user.
    pub image: Option<Arc<Image>>,
    /// Its file, of a Go executable: open as long as the process is watched, and somebody reads it.
    pub exe: Option<Arc<File>>,
    /// How often what could not be attached was tried again, one time after the other, and when it was tried last.
    pub tries: u32,
    pub tried: MonoNs,
    /// Waits for its process' end.
    pub end: Option<AbortHandle>,
    /// Run-time address less link-time address.
    pub bias: u64,
    pub resource: Arc<Resource>,
    /// When it was attached: begin of the kernel's counts.
    pub since: MonoNs,
    /// When the process started: begin of the runtime's own counts.
    pub started: MonoNs,
    /// What there could be of each signal.
    pub planned: Vec<SignalState>,
    /// What is on now, in part, or off, and why: see [`Self::restate`].
    pub states: Vec<SignalState>,
    /// What could not be attached of late.
    pub failures: Failures,
    /// Probes that are always in place.
    pub links: Links,
    /// Those of them that could not be attached yet.
    pub missing: Vec<Probe>,
    /// What the kernel programs know of it.
    pub known: agent_common::target::Target,
    /// Plane 1: the kernel's hooks.
    pub hooks: Duty,
    /// What others' windows of plane 1 may cost it; None without a budget.
    pub guest: Option<Guest>,
    /// Plane 2.
    pub probes: Duty,
    /// Of plane 2.
    pub worth: Worth,
    pub spent: Spent,
    /// What it has made of the kernel's maps that all share, as metrics were last made.
    pub made: Made,
    /// What it could not have of those of them that are cleared, likewise.
    pub over: Over,
    /// Where probes that see polls end could not be attached, as far as the kernel side was told.
    pub lost_ends: Vec<u64>,
    /// Future names by type id; 0 is unknown.
    pub futures: HashMap<u32, String>,
    /// Plane 0 of a Go process.
    pub go: Option<GoState>,
    /// Of a recorded target: what its symbols and its memory said.
    pub frames: HashMap<u64, Frame>,
    /// By address of a function that a goroutine was started with, as [`Self::go_start`].
    pub starts: HashMap<u64, u64>,
    pub wait_reasons: Vec<String>,
    /// Functions that goroutines were started with, whose time is shown apart: ids of [`Series::GoTime`].
    pub origins: Origins,
    /// Waits of goroutines that became spans, of late.
    pub waits: Waits,
    /// The GC's stops of the world, until their cycle is seen.
    pub stops: Stops,
    /// Who paid the mark assists of a GC cycle, until that is seen.
    pub assists: Option<Assists>,
    /// Goroutines alive.
    pub goroutines: Goroutines,
    /// GC cycles exported, and numbers that were skipped.
    pub cycles: Cycles,
    exemplars: HashMap<(u16, u32), Vec<Exemplar>>,
    symbols: Mutex<Known>,
}

fn is_off(states: &[SignalState], signal: &str) -> bool {
    let mut states = states.iter();
    states.any(|state| state.signal == signal && state.coverage.is_off())
}

/// What could not be attached, or read, when it was last tried, of each plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Probes that are always in place.
    pub always: Vec<Failure>,
    /// Those of windows.
    pub probes: Vec<Failure>,
    /// The kernel's hooks.
    pub hooks: Vec<Failure>,
    /// What is read of its memory.
    pub memory: Vec<Failure>,
}

/// A Go process' runtime and its last reading.
pub struct GoState {
    pub runtime: Arc<GoRuntime>,
    /// Explicit bounds of the runtime's histograms, seconds.
    pub bounds: Arc<[f64]>,
    pub latest: Option<(MonoNs, Snapshot)>,
}

impl GoState {
    /// Reads the memory of the process, for no longer than that. What did not answer is not asked again before it has.
    pub fn read<T: Send + 'static>(
        &self,
        pid: u32,
        most: Duration,
        read: impl FnOnce(&GoRuntime) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let runtime = self.runtime.clone();
        deadline::MEMORY.within(pid, most, move || read(&runtime))?
    }
}

impl Target {
    /// A target with nothing attached yet.
    pub fn new(process: Process, slot: u32, resource: Arc<Resource>, since: MonoNs) -> Self {
        let started = clock::process_start(process.start);
        Self {
            process,
            room: Room::default(),
            quotas: None,
            slot,
            image: None,
            exe: None,
            bias: 0,
            resource,
            since,
            started,
            planned: Vec::new(),
            states: Vec::new(),
            failures: Failures::default(),
            links: Links::default(),
            missing: Vec::new(),
            known: agent_common::target::Target::default(),
            hooks: Duty::new(Plane::Hooks, Arc::from([]), None, since),
            guest: None,
            probes: Duty::new(Plane::Probes, Arc::from([]), None, since),
            worth: Worth::default(),
            spent: Spent::default(),
            made: Made::default(),
            over: Over::default(),
            lost_ends: Vec::new(),
            futures: HashMap::new(),
            go: None,
            frames: HashMap::new(),
            starts: HashMap::new(),
            wait_reasons: Vec::new(),
            origins: Origins::default(),
            waits: Waits::default(),
            stops: Stops::default(),
            assists: None,
            goroutines: Goroutines::default(),
            tries: 0,
            tried: since,
            end: None,
            cycles: Cycles::default(),
            exemplars: HashMap::new(),
            symbols: Mutex::default(),
        }
    }

    /// Opens what functions' names are read of as they are asked for: also when the process has ended.
    pub fn open_exe(&mut self) -> Result<(), ProcessError> {
        if let Some(Image::Go(_)) = self.image.as_deref() {
            self.exe = Some(self.process.open_exe()?.into());
        }
        Ok(())
    }

    /// Says anew what there is of each signal.
    pub fn restate(&mut self) {
        let Failures {
            always,
            probes,
            hooks,
            memory,
        } = &self.failures;
        let failures = always.iter().chain(probes).chain(hooks).chain(memory);
        self.states = signals::plan::states_now(&self.planned, failures);
    }

    /// Whether a signal was left out, or cannot be had.
    pub fn is_off(&self, signal: &str) -> bool {
        is_off(&self.states, signal)
    }

    /// The same, and it is not to be expected later either.
    pub fn is_never_on(&self, signal: &str) -> bool {
        is_off(&self.planned, signal)
    }

    /// Takes note of a GC cycle; false when it was seen before.
    pub fn note_cycle(&mut self, number: u64) -> bool {
        self.cycles.note(number)
    }

    /// Whether a window of either plane is open.
    pub fn is_seen(&self) -> bool {
        self.hooks.window.is_open() || self.probes.window.is_open()
    }

    /// The duty that a signal depends on; None for what is always on.
    pub fn duty_of(&self, signal: &str) -> Option<&Duty> {
        if self.probes.probes.iter().any(|probe| probe.signal == signal) {
            return Some(&self.probes);
        }
        signals::is_hooked(signal).then_some(&self.hooks)
    }

    /// A future's name by its type id.
    pub fn future(&self, id: u32) -> &str {
        // Whether the ends of its polls are seen may change.
        let of = |id| self.futures.get(&id).map(String::as_str);
        of(id).or_else(|| of(id ^ UNENDED)).unwrap_or("unknown")
    }

    /// The runtime's name of a wait reason.
    pub fn wait_reason(&self, number: u32) -> String {
        let known = self
            .go
            .as_ref()
            .map_or(&self.wait_reasons, |go| &go.runtime.wait_reasons);
        match known.get(number as usize) {
            Some(name) if name.is_empty() => "none".to_owned(),
            Some(name) => name.clone(),
            None => format!("reason {number}"),
        }
    }

    /// Reads plane 0, if there is any and the runtime has started.
    pub fn read_runtime(&mut self, now: MonoNs) -> io::Result<()> {
        let off = self.is_never_on(signals::go::runtime::NAME);
        let Some(go) = &mut self.go else { return Ok(()) };
        // Others read it too: the user may want their part only.
        if off {
            return Ok(());
        }
        let snapshot = go.read(self.process.pid, deadline::SOON, |runtime| {
            runtime.is_started().then(|| runtime.snapshot()).transpose()
        })?;
        if let Some(snapshot) = snapshot {
            go.latest = Some((now, snapshot));
        }
        Ok(())
    }

    /// Keeps a span as an exemplar of its series.
    pub fn remember(&mut self, series: Series, id: u32, span: &Span) {
        let kept = self.exemplars.entry((series as u16, id)).or_default();
        if kept.len() == EXEMPLARS {
            kept.remove(0);
        }
        kept.push(Exemplar {
            time: span.end,
            value: span.end.0.saturating_sub(span.start.0) as f64 / 1e9,
            trace_id: span.trace_id,
            span_id: span.span_id,
        });
    }

    /// The exemplars of a series since the last [`Self::forget_exemplars`].
    pub fn exemplars(&self, series: Series, id: u32) -> Vec<Exemplar> {
        self.exemplars.get(&(series as u16, id)).cloned().unwrap_or_default()
    }

    /// Drops exemplars that were exported.
    pub fn forget_exemplars(&mut self) {
        self.exemplars.clear();
    }

    /// A gauge's point.
    pub fn gauge(&self, value: i64, time: MonoNs, attributes: Vec<Attribute>) -> Point {
        Point {
            attributes,
            start: self.started,
            time,
            data: PointData::Gauge(value),
            exemplars: Vec::new(),
        }
    }

    /// A cumulative sum's point, counted since the target was attached.
    pub fn sum(&self, value: u64, time: MonoNs, attributes: Vec<Attribute>) -> Point {
        self.sum_from(self.since, value, time, attributes)
    }

    /// A cumulative sum's point, counted since `start`.
    pub fn sum_from(&self, start: MonoNs, value: u64, time: MonoNs, attributes: Vec<Attribute>) -> Point {
        Point {
            attributes,
            start,
            time,
            data: PointData::Sum(value as i64),
            exemplars: Vec::new(),
        }
    }
}
