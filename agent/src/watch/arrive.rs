//! Processes as they come: those that are there, new programs by their exec events, and what a reconciling look finds besides.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use log::{Level, debug, log, warn};

use super::{
    Settled, Why,
    images::{self, Inspected},
    lifecycle::{Lifecycle, Targets},
};
use crate::{
    discover::{Census, Process, ProcessError},
    exit::{Exit, Fatal},
    inspect::{Image, InspectError},
    model::MonoNs,
};

/// Executables of which is remembered that something was said.
const SAID: usize = 4096;

/// A reconciling look that is over: the processes that are new to it.
pub struct Looked {
    census: Census,
    found: io::Result<Vec<Process>>,
}

pub(super) enum Refused {
    Process(ProcessError),
    Inspect(InspectError),
}

impl Lifecycle {
    /// Looks at every process there is. A process named by its pid must be there and be of use, or the run ends.
    pub fn scan(&mut self, targets: &mut impl Targets) -> anyhow::Result<()> {
        for pid in self.selector.pids.clone() {
            self.admit_named(targets, pid)?;
        }
        if let Some(census) = &mut self.census {
            let all = census.look();
            let failed = |error| Fatal::new(Exit::Failed, format!("cannot list the processes in /proc: {error}"));
            for process in all.map_err(failed)? {
                self.arrived(targets, process);
            }
        }
        Ok(())
    }

    /// Begins a look at every process, beside the loop that takes events; [`Self::looks`] gets what it finds.
    pub fn reconcile(&mut self) {
        // The last one is not over.
        let Some(mut census) = self.census.take() else { return };
        self.undecided.drain(..).for_each(|pid| census.forget(pid));
        let census_to_pipeline = self.census_to_pipeline.clone();
        tokio::task::spawn_blocking(move || {
            // Otherwise it would be the last one.
            let found = catch_unwind(AssertUnwindSafe(|| census.look()));
            let found = found.unwrap_or_else(|_| Err(io::Error::other("looking panicked")));
            // The pipeline is gone only when the agent ends.
            let _ = census_to_pipeline.blocking_send(Looked { census, found });
        });
    }

    /// Takes note of what a look has found.
    pub fn reconciled(&mut self, targets: &mut impl Targets, Looked { census, found }: Looked) -> Vec<Settled> {
        self.census = Some(census);
        let mut settled = Vec::new();
        let found = found.unwrap_or_else(|error| {
            warn!("cannot list the processes in /proc: {error}");
            Vec::new()
        });
        for process in found {
            let Some(target) = targets.standing(process.pid) else {
                self.arrived(targets, process);
                continue;
            };
            if ended(target.process, &process).is_none() {
                continue;
            }
            // A look takes its time: the target may have come after what it found.
            let (target_id, is) = (target.target_id, target.process.now());
            match is.map(|now| (ended(target.process, &now), now)) {
                Ok((Some(why), now)) => {
                    settled.extend(targets.retire(target_id, why));
                    self.arrived(targets, now);
                }
                Ok((None, _)) => {}
                // Its end is on its way.
                Err(error) => self.unread(process.pid, &error),
            }
        }
        settled
    }

    /// A process became another program at `time`, ns: what it was is retired, what it is now is looked at when it has lived for a
    /// little.
    pub fn execed(&mut self, targets: &mut impl Targets, pid: u32, time: u64) -> Vec<Settled> {
        let mut settled = Vec::new();
        if let Some(target) = targets.standing(pid) {
            let target_id = target.target_id;
            let same = || {
                target
                    .process
                    .now()
                    .is_ok_and(|now| ended(target.process, &now).is_none())
            };
            // It was attached after that, and is what it was attached as.
            if time < target.since.0 && same() {
                return settled;
            }
            settled = targets.retire(target_id, Why::Execed);
        }
        if self.selector.pids.contains(&pid) {
            self.look(targets, pid);
        } else {
            self.early.born(pid, time);
        }
        settled
    }

    /// Looks at those that were too young, and that it is time for.
    pub fn turn(&mut self, targets: &mut impl Targets, now: MonoNs) {
        for pid in self.early.due(now) {
            self.look(targets, pid);
        }
    }

    /// Whether there are any that are looked at at each turn.
    pub fn is_waiting(&self) -> bool {
        self.early.is_waiting()
    }

    /// Looks at what a process is.
    fn look(&mut self, targets: &mut impl Targets, pid: u32) {
        match Process::read_in(&self.root, pid) {
            Ok(process) => self.arrived(targets, process),
            Err(error) => {
                self.early.forget(pid);
                self.unread(pid, &error);
            }
        }
    }

    /// Takes note of a process that cannot be read: it is looked at again where it may be the next time.
    fn unread(&mut self, pid: u32, error: &ProcessError) {
        debug!("process {pid} cannot be looked at: {error}");
        if error.may_pass() {
            self.undecided.push(pid);
        }
    }

    /// A new process, while events come in: what it runs is inspected beside them.
    fn arrived(&mut self, targets: &mut impl Targets, process: Process) {
        let pid = process.pid;
        if pid == std::process::id() || targets.standing(pid).is_some() || !self.selector.matches(&process) {
            return;
        }
        // Old probes would be hit beside the new ones, where the process runs the same executable again.
        if targets.is_leaving(pid) {
            return self.early.again(pid);
        }
        if !self.images.identify(process) {
            self.undecided.push(pid);
        }
    }

    /// Admits a process that the user chose and that is of use; says why not in the log.
    fn consider(&mut self, targets: &mut impl Targets, process: Process, inspected: Inspected) {
        let pid = process.pid;
        if targets.standing(pid).is_some() {
            return;
        }
        let explicit = self.selector.is_explicit();
        match inspected {
            Ok(Some(image)) => {
                if let Err(error) = targets.admit(self, process.clone(), Some(image), None) {
                    self.not_admitted(&process, &error);
                }
            }
            Ok(None) | Err(InspectError::NotElf) => {
                if explicit {
                    // A host of shared objects may have one in them.
                    self.images.look_within(process);
                }
            }
            Err(error) => {
                let level = self.once(&process, &error.to_string());
                log!(
                    level,
                    "process {pid} ({}) is not watched: {error}",
                    process.exe.display()
                );
            }
        }
    }

    /// Whether a process that was asked for aside is what it was; if it is another program by now, that is looked at.
    pub(super) fn is_still(&mut self, targets: &mut impl Targets, process: &Process) -> bool {
        match process.now() {
            Ok(now) if ended(process, &now).is_none() => return true,
            Ok(now) => self.arrived(targets, now),
            Err(error) => self.unread(process.pid, &error),
        }
        false
    }

    /// Says why a process is not watched, if it still lives; then it is looked at again, and also where that cannot be told.
    pub(super) fn not_admitted(&mut self, process: &Process, error: &anyhow::Error) {
        if process.is_alive() {
            self.undecided.push(process.pid);
        }
        let level = self.while_alive(process, &format!("{error:#}"));
        log!(level, "process {} ({}): {error:#}", process.pid, process.exe.display());
    }

    pub(super) fn inspect(&mut self, process: &Process) -> Result<Option<Arc<dyn Image>>, Refused> {
        let inspected = self.images.of(process).map_err(Refused::Process)?;
        inspected.map_err(Refused::Inspect)
    }

    /// An inspection is over: the processes that waited for it are looked at.
    pub fn looked(&mut self, targets: &mut impl Targets, looked: images::Looked) {
        match looked {
            images::Looked::Identified(found) => {
                if let Some((process, inspected)) = self.images.identified(found)
                    && self.is_still(targets, &process)
                {
                    self.consider(targets, process, inspected);
                }
            }
            images::Looked::Executable(executable) => {
                for pid in self.images.looked(executable) {
                    self.look(targets, pid);
                }
            }
            images::Looked::Host(images::Host { process, found }) => {
                self.images.looked_within();
                self.consider_host(targets, process, found);
            }
        }
        self.undecided.append(&mut self.images.again);
    }

    /// How loud to say what is in the way of a process: of one that has just ended it is that.
    pub(super) fn while_alive(&mut self, process: &Process, what: &str) -> Level {
        if process.is_alive() {
            self.once(process, what)
        } else {
            Level::Debug
        }
    }

    /// How loud to say something of a process' executable: once as a warning, as a compiler may start by the hundred.
    pub(super) fn once(&mut self, process: &Process, what: &str) -> Level {
        if self.said.len() == SAID {
            self.said.clear();
        }
        if self.said.insert((process.exe.clone(), what.to_owned())) {
            Level::Warn
        } else {
            Level::Debug
        }
    }
}

/// Why a target is no more what it was, by what stands at its pid now; None when it is.
fn ended(was: &Process, is: &Process) -> Option<Why> {
    if was.start != is.start {
        return Some(Why::Ended);
    }
    (was.program != is.program).then_some(Why::Execed)
}
