//! Checks of processes: each one that an exec event or a scan shows is identified, its executable is inspected, and if that is of use the
//! process becomes a target.

use std::sync::Arc;

use log::{debug, log, warn};

use super::{
    Admission, EndReason, Inspection, Lifecycle, Scan, Targets,
    images::{Inspected, LibrarySearch},
};
use crate::{
    discover::{Process, ProcessError},
    exit::{Exit, Fatal},
    inspect::{Image, InspectError},
    model::MonoNs,
};

impl Lifecycle {
    /// Checks all processes at the start of a run. A process that the user requested by its pid must exist and be of use: otherwise the error
    /// ends the run.
    pub fn first_scan(&mut self, targets: &mut impl Targets) -> anyhow::Result<()> {
        for pid in self.selector.pids.clone() {
            self.admit_requested(targets, pid)?;
        }
        let failed = |error| Fatal::new(Exit::Failed, format!("cannot list the processes in /proc: {error}"));
        for process in self.scanner.scan_now().map_err(failed)? {
            self.check(targets, process);
        }
        Ok(())
    }

    /// Handles a finished scan: retires targets whose process is another one now, and checks the processes that are new.
    pub fn on_scan(&mut self, targets: &mut impl Targets, scan: Scan) {
        let found = self.scanner.finish(scan).unwrap_or_else(|error| {
            warn!("cannot list the processes in /proc: {error}");
            Vec::new()
        });
        for process in found {
            let Some(target) = targets.target(process.pid) else {
                self.check(targets, process);
                continue;
            };
            if end_reason(target.process, &process).is_none() {
                continue;
            }
            // A scan takes time: the process may have become a target after the scan read it.
            let id = target.id;
            let now = target.process.now();
            match now.map(|now| (end_reason(target.process, &now), now)) {
                Ok((Some(reason), now)) => {
                    targets.retire(id, reason);
                    self.check(targets, now);
                }
                Ok((None, _)) => {}
                // If it ended, its pidfd reports that.
                Err(error) => self.retry_if_temporary(process.pid, &error),
            }
        }
    }

    /// Handles an exec event: the process became another program at `time`, ns. What it was before is retired. The new program is checked
    /// when it has run for some time.
    pub fn on_exec(&mut self, targets: &mut impl Targets, pid: u32, time: u64) {
        if let Some(target) = targets.target(pid) {
            let id = target.id;
            let is_same = || {
                let now = target.process.now();
                now.is_ok_and(|now| end_reason(target.process, &now).is_none())
            };
            // The event is older than the target.
            if time < target.since.0 && is_same() {
                return;
            }
            targets.retire(id, EndReason::Execed);
        }
        if self.selector.pids.contains(&pid) {
            self.check_pid(targets, pid);
        } else {
            self.deferred.add_new(pid, time);
        }
    }

    /// Handles a finished inspection.
    pub fn on_inspection(&mut self, targets: &mut impl Targets, inspection: Inspection) {
        match inspection {
            Inspection::Identified(identified) => {
                if let Some((process, inspected)) = self.images.on_identified(identified)
                    && self.is_unchanged(targets, &process)
                {
                    self.decide(targets, process, inspected);
                }
            }
            Inspection::Executable(executable) => {
                for pid in self.images.on_executable(executable) {
                    self.check_pid(targets, pid);
                }
            }
            Inspection::Libraries(LibrarySearch { process, found }) => {
                self.images.on_libraries();
                self.admit_host(targets, process, found);
            }
        }
        self.scanner.retry(self.images.retry.drain(..));
    }

    /// Checks the processes whose deferred check is due.
    pub fn check_deferred(&mut self, targets: &mut impl Targets, now: MonoNs) {
        for pid in self.deferred.take_due(now) {
            self.check_pid(targets, pid);
        }
    }

    /// Whether any process is to be checked at the next turn.
    pub fn has_retries(&self) -> bool {
        self.deferred.has_retries()
    }

    fn check_pid(&mut self, targets: &mut impl Targets, pid: u32) {
        match Process::read_in(&self.root, pid) {
            Ok(process) => self.check(targets, process),
            Err(error) => {
                self.deferred.forget(pid);
                self.retry_if_temporary(pid, &error);
            }
        }
    }

    /// Starts the check of a process that the user selected. [`Self::on_inspection`] continues it.
    fn check(&mut self, targets: &mut impl Targets, process: Process) {
        let pid = process.pid;
        if pid == std::process::id() || targets.target(pid).is_some() || !self.selector.matches(&process) {
            return;
        }
        // If the process runs the same executable again, a hit would run old and new probes.
        if targets.is_detaching(pid) {
            return self.deferred.retry(pid);
        }
        if !self.images.identify(process) {
            self.scanner.retry([pid]);
        }
    }

    /// Admits a process whose executable is of use. Otherwise logs why not.
    fn decide(&mut self, targets: &mut impl Targets, process: Process, inspected: Inspected) {
        let pid = process.pid;
        if targets.target(pid).is_some() {
            return;
        }
        match inspected {
            Ok(Some(image)) => self.admit_or_warn(targets, process, Some(image), None),
            Ok(None) | Err(InspectError::NotElf) => {
                if self.selector.is_explicit() {
                    // A runtime may be in one of its shared objects.
                    self.images.search_libraries(process);
                }
            }
            Err(error) => {
                let level = self.warnings.level(&process, &error.to_string());
                log!(
                    level,
                    "process {pid} ({}) is not watched: {error}",
                    process.exe.display()
                );
            }
        }
    }

    /// Whether a process is still what it was when its inspection started. If it is another program by now, that is checked.
    pub(super) fn is_unchanged(&mut self, targets: &mut impl Targets, process: &Process) -> bool {
        match process.now() {
            Ok(now) if end_reason(process, &now).is_none() => return true,
            Ok(now) => self.check(targets, now),
            Err(error) => self.retry_if_temporary(process.pid, &error),
        }
        false
    }

    /// Makes a process a target, or defers that if its runtime has not started.
    pub(super) fn admit(
        &mut self,
        targets: &mut impl Targets,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
    ) -> anyhow::Result<()> {
        let pid = process.pid;
        let wait_for_start = self.deferred.may_wait_for_start(pid);
        let admission = targets.admit(process.clone(), image, error, wait_for_start);
        if let Ok(Admission::NotStarted) = admission {
            self.deferred.wait_for_start(pid);
            return Ok(());
        }
        self.deferred.forget(pid);
        if let Admission::Admitted {
            without_runtime: Some(error),
        } = admission?
        {
            let level = self.warnings.level_while_alive(&process, &error);
            log!(
                level,
                "process {pid} ({}): {error}. Its sockets and threads are watched, its runtime is not",
                process.exe.display()
            );
        }
        Ok(())
    }

    /// The same; logs the error if it fails. If the process still lives, or may live, the next scan shows it again.
    pub(super) fn admit_or_warn(
        &mut self,
        targets: &mut impl Targets,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
    ) {
        let Err(error) = self.admit(targets, process.clone(), image, error) else {
            return;
        };
        if process.is_alive() {
            self.scanner.retry([process.pid]);
        }
        let level = self.warnings.level_while_alive(&process, &format!("{error:#}"));
        log!(level, "process {} ({}): {error:#}", process.pid, process.exe.display());
    }

    /// Handles a process that cannot be read: if it may be readable later, the next scan shows it again.
    fn retry_if_temporary(&mut self, pid: u32, error: &ProcessError) {
        debug!("process {pid} cannot be read: {error}");
        if error.may_pass() {
            self.scanner.retry([pid]);
        }
    }
}

/// Why a target whose process was `before` has ended, if the process with its pid is `now`. None if it has not.
fn end_reason(before: &Process, now: &Process) -> Option<EndReason> {
    if before.start != now.start {
        return Some(EndReason::Exited);
    }
    (before.program != now.program).then_some(EndReason::Execed)
}
