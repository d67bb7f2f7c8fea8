//! The life cycle against a proc filesystem that is written by hand: what processes do is a script, what executables are is read of
//! files, and only what the kernel has of targets is left out.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, Once},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::{
    Settled, Why, arrive,
    images::Looked,
    lifecycle::{Lifecycle, Standing, Targets},
    places::Places,
};
use crate::{
    discover::{Process, Selector, scripted::Proc},
    inspect::{Image, InspectError},
    model::MonoNs,
};

mod change;
mod find;
mod refuse;

const SECOND: u64 = 1_000_000_000;

/// A target, without what the kernel has of it.
struct Held {
    target_id: u32,
    index: u32,
    process: Process,
    since: u64,
}

/// Those that were made targets.
struct Kept {
    proc: Proc,
    targets: BTreeMap<u32, Held>,
    places: Places,
    /// CLOCK_MONOTONIC, ns.
    now: u64,
    /// How many were ever taken.
    taken: u32,
    retired: Vec<(u32, Why)>,
    /// Indices of those whose last figures were not read yet.
    unread: Vec<u32>,
    /// Whose probes are still being taken out.
    leaving: HashSet<u32>,
    /// What happens to a process while it is attached.
    meanwhile: Option<fn(&Proc, u32)>,
}

impl Targets for Kept {
    fn standing(&self, pid: u32) -> Option<Standing<'_>> {
        self.targets.get(&pid).map(|held| Standing {
            target_id: held.target_id,
            process: &held.process,
            since: MonoNs(held.since),
        })
    }

    fn is_leaving(&mut self, pid: u32) -> bool {
        self.leaving.contains(&pid)
    }

    fn admit(
        &mut self,
        _: &mut Lifecycle,
        process: Process,
        _: Option<Arc<dyn Image>>,
        _: Option<InspectError>,
    ) -> anyhow::Result<()> {
        let (pid, index) = (process.pid, self.places.next(self.targets.len())?);
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile(&self.proc, pid);
        }
        process.check()?;
        self.places.take();
        self.taken += 1;
        let held = Held {
            target_id: self.taken,
            index,
            process,
            since: self.now,
        };
        assert!(self.targets.insert(pid, held).is_none(), "{pid} is a target twice");
        Ok(())
    }

    fn retire(&mut self, target_id: u32, why: Why) -> Vec<Settled> {
        let pid = self
            .targets
            .iter()
            .find(|(_, held)| held.target_id == target_id)
            .map(|(pid, _)| *pid);
        let pid = pid.expect("a target");
        self.unread.push(self.targets[&pid].index);
        self.targets.remove(&pid);
        self.retired.push((pid, why));
        Vec::new()
    }
}

/// Processes, and what is made of them.
struct World {
    programs: tempfile::TempDir,
    life: Lifecycle,
    kept: Kept,
    /// How often a process was asked which file it runs.
    asked: usize,
}

impl World {
    /// Nobody runs yet; there are the Go programs `service` and `worker`, and the `shell`, which is no use.
    fn new() -> Self {
        Self::of(Selector::default())
    }

    /// The same, of which the user chose some.
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
            kept: Kept {
                proc,
                targets: BTreeMap::new(),
                places: Places::default(),
                now: SECOND,
                taken: 0,
                retired: Vec::new(),
                unread: Vec::new(),
                leaving: HashSet::new(),
                meanwhile: None,
            },
            asked: 0,
        }
    }

    /// A process is this from now on (its start, where its stack begins, its program), and no event tells of it.
    fn is(&self, pid: u32, (start, stack, program): (u64, u64, &str)) {
        let exe = self.programs.path().join(program);
        self.kept.proc.set(pid, (start, stack, exe));
    }

    /// The same by an exec, whose event comes at once.
    fn execs(&mut self, pid: u32, what: (u64, u64, &str)) {
        self.is(pid, what);
        self.event(pid, self.kept.now);
    }

    /// An exec event comes.
    fn event(&mut self, pid: u32, time: u64) {
        self.life.execed(&mut self.kept, pid, time);
    }

    /// Everybody who is there when the agent starts.
    async fn scan(&mut self) {
        self.life.scan(&mut self.kept).unwrap();
        self.settle().await;
    }

    /// What an inspection said.
    async fn answer(&mut self) -> Looked {
        let looked = self.life.images.done.recv().await.unwrap();
        self.asked += usize::from(matches!(looked, Looked::Identified(_)));
        looked
    }

    /// A second passes.
    fn turn(&mut self) {
        self.kept.now += SECOND;
        let now = MonoNs(self.kept.now);
        self.life.turn(&mut self.kept, now);
    }

    /// The same, and all inspections end.
    async fn settle(&mut self) {
        self.turn();
        self.answers().await;
    }

    /// All inspections end.
    async fn answers(&mut self) {
        while self.life.images.is_busy() {
            let looked = self.answer().await;
            self.life.looked(&mut self.kept, looked);
        }
    }

    /// A reconciling look, and all that comes of it.
    async fn look(&mut self) {
        let looked = self.found().await;
        self.life.reconciled(&mut self.kept, looked);
        self.settle().await;
    }

    /// What a reconciling look finds.
    async fn found(&mut self) -> arrive::Looked {
        self.life.reconcile();
        self.life.looks.recv().await.unwrap()
    }

    /// A process ends, and its pidfd says so.
    fn ends(&mut self, pid: u32) {
        self.kept.proc.end(pid);
        let target_id = self.kept.targets[&pid].target_id;
        self.kept.retire(target_id, Why::Ended);
    }

    /// The last figures of those that ended are read.
    fn bury(&mut self) {
        for index in std::mem::take(&mut self.kept.unread) {
            self.kept.places.give_back(index);
        }
    }

    /// Who is a target, as what, and how many were ever taken.
    #[track_caller]
    fn check(&self, what: &str, targets: &[(u32, &str)], taken: u32) {
        let program = |held: &Held| held.process.exe.file_name().unwrap().to_str().unwrap().to_owned();
        let found: Vec<(u32, String)> = self
            .kept
            .targets
            .iter()
            .map(|(pid, held)| (*pid, program(held)))
            .collect();
        let found: Vec<(u32, &str)> = found.iter().map(|(pid, program)| (*pid, program.as_str())).collect();
        assert_eq!((found.as_slice(), self.kept.taken), (targets, taken), "{what}");
    }
}

/// What was said of a process, but for debugging.
fn said(pid: u32) -> Vec<String> {
    let said = SAID.lock().unwrap();
    said.iter()
        .filter(|line| line.contains(&pid.to_string()))
        .cloned()
        .collect()
}

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        SAID.lock()
            .unwrap()
            .push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// From now on what is said is kept, of all tests.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Listener).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}
