//! What each signal means: its attach points, its events as spans, its histograms as metrics. One signal a file, under the
//! same path in `agent-common`, `agent-ebpf` and `telemetry`; this registry is the only list of them.

pub mod docs;
pub mod events;
pub mod go;
pub mod net;
pub mod plan;
pub mod points;
pub mod process;
pub mod runtimes;
pub mod state;
pub mod summary;
pub mod thread;
pub mod tokio;

use std::io;

use agent_common::{
    histogram::Series,
    hits::{HitKind, Plane},
    target::Target as KernelTarget,
};

use crate::{
    aggregate::store::Reading,
    model::{Metric, MonoNs},
    signal::Hook,
    target::Target,
    telemetry::{Defs, Table},
};

use events::EventKind;
use summary::Summary;

pub use events::{add_spans, addresses, is_part};
pub use state::State;

/// What the rest of the agent knows of a signal. Each is declared in its own file, and stands in [`SIGNALS`].
pub struct Signal {
    pub name: &'static str,
    /// Names of what it exports.
    pub telemetry: &'static Defs,
    /// How it is had of the kernel, if that is the way.
    pub hook: Option<Hook>,
    /// What its programs are counted as, when a target pays for them.
    pub probes: &'static [HitKind],
    /// What they count for it.
    pub series: &'static [Series],
    /// Its probes are rarely hit, as once a GC cycle: they are in place outside windows too.
    pub always: bool,
    /// What it has of other signals.
    pub needs: &'static [Need],
    /// Whether nothing is left of it without all of them.
    pub needs_any: bool,
    /// Called when a process becomes a target, before the kernel programs see the process.
    pub start: Option<Start>,
    /// Its events, which become spans: each type implements [`events::SignalEvent`] in the signal's file.
    pub events: &'static [EventKind],
    /// How it is read from the process' memory or /proc, if that is the way.
    pub read: Option<MemoryRead>,
    /// Its metrics at a reading.
    pub metrics: fn(&Target, &State, &Reading) -> Vec<Metric>,
    /// What the terminal's summary shows of it at a reading.
    pub summary: Option<fn(&Target, &State, &Reading) -> Summary>,
    /// What `selftest` must see of it.
    pub check: Option<Check>,
}

impl Signal {
    /// One that needs no other and has metrics alone.
    pub const fn new(
        name: &'static str,
        telemetry: &'static Defs,
        metrics: fn(&Target, &State, &Reading) -> Vec<Metric>,
    ) -> Self {
        Self {
            name,
            telemetry,
            hook: None,
            probes: &[],
            series: &[],
            always: false,
            needs: &[],
            needs_any: false,
            start: None,
            events: &[],
            read: None,
            metrics,
            summary: None,
            check: None,
        }
    }
}

/// Prepares a signal of a new target: its state, and what the kernel programs must know.
pub type Start = fn(&Target, &mut State, &Thresholds, &mut KernelTarget);

/// A read of the process' memory, or of the kernel's account of it.
pub struct MemoryRead {
    pub when: ReadWhen,
    /// False when there was nothing to read, or when it is not time yet.
    pub read: fn(&Target, &mut State, MonoNs) -> io::Result<bool>,
}

/// When memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadWhen {
    /// Once a second.
    Tick,
    /// Before metrics are exported.
    Export,
}

/// The user's thresholds, ns. Each value above one becomes an event.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Waits of goroutines.
    pub wait: u64,
    /// Polls of tasks.
    pub poll: u64,
    /// Requests.
    pub request: u64,
}

/// Another signal without which one is less than it could be.
pub struct Need {
    pub of: &'static str,
    /// What is not told then.
    pub lost: &'static str,
}

/// What a signal must bring: what it is called, and how much of it there was.
pub struct Check {
    pub what: &'static str,
    pub count: fn(&Target, &State, &Reading) -> u64,
}

/// Every signal of a target.
const ALL: [Signal; 18] = [
    go::runtime::SIGNAL,
    go::goroutines::SIGNAL,
    go::wait::SIGNAL,
    go::gc::SIGNAL,
    go::stw::SIGNAL,
    go::assist::SIGNAL,
    go::sched::SIGNAL,
    go::handoff::SIGNAL,
    go::latency::SIGNAL,
    tokio::poll::SIGNAL,
    tokio::wake::SIGNAL,
    net::connect::SIGNAL,
    net::request::SIGNAL,
    net::retransmit::SIGNAL,
    thread::run_queue::SIGNAL,
    thread::syscall::SIGNAL,
    thread::totals::SIGNAL,
    process::quota::SIGNAL,
];
pub static SIGNALS: [Signal; ALL.len()] = ALL;

/// Names of the signals: those that `--without` can leave out.
pub const NAMES: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = ALL[index].name;
        index += 1;
    }
    names
};

/// Reads of the process' memory, with their signal's name.
pub fn memory_reads(when: ReadWhen) -> impl Iterator<Item = (&'static str, &'static MemoryRead)> {
    let reads = SIGNALS
        .iter()
        .filter_map(|signal| Some((signal.name, signal.read.as_ref()?)));
    reads.filter(move |(_, read)| read.when == when)
}

/// Names of all that the agent exports.
pub fn telemetry() -> Table {
    Table::of(SIGNALS.iter().map(|signal| signal.telemetry))
}

/// Names of those that are left out unless `--with` adds them.
pub fn optional() -> Vec<&'static str> {
    let optional = SIGNALS
        .iter()
        .filter(|signal| signal.hook.as_ref().is_some_and(|hook| hook.asked.is_some()));
    optional.map(|signal| signal.name).collect()
}

/// Whether the probes of a signal are in place outside windows too.
pub fn is_always_on(name: &str) -> bool {
    SIGNALS.iter().any(|signal| signal.name == name && signal.always)
}

/// The plane of a signal that comes from a hook of the kernel: that of its hits. None of another signal.
pub fn hooked_plane(name: &str) -> Option<Plane> {
    plane(name).filter(|plane| !plane.is_probed())
}

/// The plane that pays for a signal's hits; None of a signal that has none.
pub fn plane(name: &str) -> Option<Plane> {
    let signal = SIGNALS.iter().find(|signal| signal.name == name)?;
    signal.probes.first().map(|kind| kind.plane())
}

/// Prepares all signals of a new target.
pub fn start(target: &Target, state: &mut State, thresholds: &Thresholds, kernel: &mut KernelTarget) {
    for start in SIGNALS.iter().filter_map(|signal| signal.start) {
        start(target, state, thresholds, kernel);
    }
}

/// The kernel's hooks: the one for new processes, which is the agent's own, then those of signals.
pub fn hooks() -> impl Iterator<Item = &'static Hook> {
    let of_signals = SIGNALS.iter().filter_map(|signal| signal.hook.as_ref());
    std::iter::once(&process::exec::HOOK).chain(of_signals)
}

/// Takes note of a reading before its metrics are made.
pub fn note(target: &Target, state: &mut State, reading: &Reading) {
    process::quota::look(target, state);
    go::origins::note(target, state, reading);
}

/// Everything there is to say of `target` at this reading.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let of_signals = SIGNALS
        .iter()
        .flat_map(|signal| (signal.metrics)(target, state, reading));
    of_signals.collect()
}

/// What the summary shows of `target` at this reading; `is_whole` is whether a signal sees everything.
pub fn summary(target: &Target, state: &State, reading: &Reading, is_whole: impl Fn(&str) -> bool) -> Summary {
    let of_signal = |signal: &Signal| Some((signal.name, signal.summary?(target, state, reading)));
    Summary::of(SIGNALS.iter().filter_map(of_signal), is_whole)
}
