//! The life cycle against a proc filesystem that tests write: what processes do is a script, executables are files, and only the kernel
//! side of a target is left out.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, Once},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::{Admission, EndReason, Inspection, Lifecycle, Scan, TargetInfo, Targets};
use crate::{
    discover::{Process, Selector, scripted::Proc},
    inspect::{Image, InspectError},
    model::MonoNs,
    watch::Indices,
};

mod change;
mod find;
mod refuse;

const SECOND: u64 = 1_000_000_000;

/// A target, without its kernel side.
struct FakeTarget {
    id: u32,
    index: u32,
    process: Process,
    since: u64,
}

/// The targets.
struct FakeTargets {
    proc: Proc,
    by_pid: BTreeMap<u32, FakeTarget>,
    indices: Indices,
    /// The part of the budget that the agent's own limits leave.
    budget_scale: f64,
    /// CLOCK_MONOTONIC, ns.
    now: u64,
    /// How many were ever admitted.
    admitted: u32,
    retired: Vec<(u32, EndReason)>,
    /// Indices of targets that ended and whose last figures are not read yet.
    unread: Vec<u32>,
    /// Processes whose probes are still being detached.
    detaching: HashSet<u32>,
    /// At how many checks more runtimes have not started, and how often that was found.
    not_started: u32,
    waits: u32,
    /// What happens to a process while it is attached.
    while_attaching: Option<fn(&Proc, u32)>,
}

impl Targets for FakeTargets {
    fn target(&self, pid: u32) -> Option<TargetInfo<'_>> {
        self.by_pid.get(&pid).map(|target| TargetInfo {
            id: target.id,
            process: &target.process,
            since: MonoNs(target.since),
        })
    }

    fn is_detaching(&mut self, pid: u32) -> bool {
        self.detaching.contains(&pid)
    }

    fn admit(
        &mut self,
        process: Process,
        _: Option<Arc<dyn Image>>,
        _: Option<InspectError>,
        wait_for_start: bool,
    ) -> anyhow::Result<Admission> {
        let started = self.not_started == 0;
        if wait_for_start && !started {
            self.not_started -= 1;
            self.waits += 1;
            return Ok(Admission::NotStarted);
        }
        let (pid, index) = (process.pid, self.indices.next(self.by_pid.len(), self.budget_scale)?);
        if let Some(happens) = self.while_attaching.take() {
            happens(&self.proc, pid);
        }
        process.check()?;
        self.indices.take();
        self.admitted += 1;
        let target = FakeTarget {
            id: self.admitted,
            index,
            process,
            since: self.now,
        };
        assert!(self.by_pid.insert(pid, target).is_none(), "{pid} is a target twice");
        Ok(Admission::Admitted {
            without_runtime: (!started).then(|| "its runtime has not started".to_owned()),
        })
    }

    fn retire(&mut self, id: u32, reason: EndReason) {
        let found = self.by_pid.iter().find(|(_, target)| target.id == id);
        let pid = found.map(|(pid, _)| *pid).expect("a target");
        self.unread.push(self.by_pid[&pid].index);
        self.by_pid.remove(&pid);
        self.retired.push((pid, reason));
    }
}

/// Processes, the life cycle and its targets.
struct World {
    programs: tempfile::TempDir,
    life: Lifecycle,
    targets: FakeTargets,
    /// How often the file that a process runs was identified.
    identified: usize,
}

impl World {
    /// No process runs yet. There are the Go programs `service` and `worker`, and `shell`, which is of no use.
    fn new() -> Self {
        Self::of(Selector::default())
    }

    /// The same with some selected by the user.
    fn of(selector: Selector) -> Self {
        listen();
        let programs = tempfile::tempdir().unwrap();
        let go = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/image/small");
        for name in ["service", "worker"] {
            fs::copy(&go, programs.path().join(name)).unwrap();
        }
        fs::write(programs.path().join("shell"), "#!/bin/sh\n").unwrap();
        let proc = Proc::new();
        Self {
            programs,
            life: Lifecycle::new(proc.root(), selector, Process::inspect),
            targets: FakeTargets {
                proc,
                by_pid: BTreeMap::new(),
                indices: Indices::default(),
                budget_scale: 1.0,
                now: SECOND,
                admitted: 0,
                retired: Vec::new(),
                unread: Vec::new(),
                detaching: HashSet::new(),
                not_started: 0,
                waits: 0,
                while_attaching: None,
            },
            identified: 0,
        }
    }

    /// From now on a process has this start, this begin of its stack and this program. No event reports it.
    fn is(&self, pid: u32, (start, stack, program): (u64, u64, &str)) {
        let exe = self.programs.path().join(program);
        self.targets.proc.set(pid, (start, stack, exe));
    }

    /// The same by an exec, with its event.
    fn execs(&mut self, pid: u32, what: (u64, u64, &str)) {
        self.is(pid, what);
        self.event(pid, self.targets.now);
    }

    /// An exec event.
    fn event(&mut self, pid: u32, time: u64) {
        self.life.on_exec(&mut self.targets, pid, time);
    }

    /// The scan at the start of a run.
    async fn first_scan(&mut self) {
        self.life.first_scan(&mut self.targets).unwrap();
        self.turn_and_inspect().await;
    }

    /// The next finished inspection.
    async fn inspection(&mut self) -> Inspection {
        let inspection = self.life.images.finished.recv().await.unwrap();
        self.identified += usize::from(matches!(inspection, Inspection::Identified(_)));
        inspection
    }

    /// A second passes.
    fn turn(&mut self) {
        self.targets.now += SECOND;
        let now = MonoNs(self.targets.now);
        self.life.check_deferred(&mut self.targets, now);
    }

    /// The same, and all inspections finish.
    async fn turn_and_inspect(&mut self) {
        self.turn();
        self.inspect().await;
    }

    /// All inspections finish.
    async fn inspect(&mut self) {
        while self.life.images.is_busy() {
            let inspection = self.inspection().await;
            self.life.on_inspection(&mut self.targets, inspection);
        }
    }

    /// A scan and everything that follows from it.
    async fn rescan(&mut self) {
        let scan = self.scan().await;
        self.life.on_scan(&mut self.targets, scan);
        self.turn_and_inspect().await;
    }

    /// A finished scan.
    async fn scan(&mut self) -> Scan {
        self.life.scanner.start();
        self.life.scanner.finished.recv().await.unwrap()
    }

    /// A process ends, and its pidfd reports it.
    fn ends(&mut self, pid: u32) {
        self.targets.proc.end(pid);
        let id = self.targets.by_pid[&pid].id;
        self.targets.retire(id, EndReason::Exited);
    }

    /// The last figures of targets that ended are read.
    fn read_last_figures(&mut self) {
        for index in std::mem::take(&mut self.targets.unread) {
            self.targets.indices.give_back(index);
        }
    }

    /// Checks which processes are targets, with which programs, and how many were ever admitted.
    #[track_caller]
    fn check(&self, what: &str, targets: &[(u32, &str)], admitted: u32) {
        let program = |target: &FakeTarget| target.process.exe.file_name().unwrap().to_str().unwrap().to_owned();
        let found = self.targets.by_pid.iter();
        let found: Vec<(u32, String)> = found.map(|(pid, target)| (*pid, program(target))).collect();
        let found: Vec<(u32, &str)> = found.iter().map(|(pid, program)| (*pid, program.as_str())).collect();
        assert_eq!((found.as_slice(), self.targets.admitted), (targets, admitted), "{what}");
    }
}

/// What was logged about a process, without debug messages.
fn logged(pid: u32) -> Vec<String> {
    let logged = LOGGED.lock().unwrap();
    let lines = logged.iter().filter(|line| line.contains(&pid.to_string()));
    lines.cloned().collect()
}

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        LOGGED
            .lock()
            .unwrap()
            .push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// From now on log messages of all tests are kept.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Listener).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}
