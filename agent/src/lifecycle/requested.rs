//! Processes that the user requested by name or pid. One that is requested by its pid must exist and be of use: otherwise the run ends.

use log::info;

use super::{Lifecycle, Targets};
use crate::{
    discover::{Process, objects},
    exit::{Exit, Fatal, of_process},
    inspect::InspectError,
};

impl Lifecycle {
    pub(super) fn admit_requested(&mut self, targets: &mut impl Targets, pid: u32) -> anyhow::Result<()> {
        let process = Process::read_in(&self.root, pid).map_err(|error| Fatal::new(of_process(&error), error))?;
        let inspected = self.images.inspect_now(&process);
        let inspected = inspected.map_err(|error| Fatal::new(of_process(&error), error))?;
        let (image, error) = match inspected {
            Ok(Some(image)) => (Some(image), None),
            Ok(None) if let Some(error) = objects::answered_runtime_in(&process) => (None, Some(error)),
            Ok(None) => {
                let message = format!(
                    "process {pid} ({}) is neither a Go nor a tokio program that can be recognised",
                    process.exe.display()
                );
                return Err(Fatal::new(Exit::NotATarget, message).into());
            }
            Err(InspectError::NotElf) => {
                return Err(Fatal::new(
                    Exit::NotATarget,
                    format!("process {pid} ({}): {}", process.exe.display(), InspectError::NotElf),
                )
                .into());
            }
            // Of a known runtime but not readable: its sockets and threads can be watched.
            Err(error) => (None, Some(error)),
        };
        self.admit(targets, process, image, error)
    }

    /// Admits a process that the user selected by name and whose executable is of no known runtime, if there is a runtime in its shared
    /// objects: `found` says which.
    pub(super) fn admit_host(&mut self, targets: &mut impl Targets, process: Process, found: Option<InspectError>) {
        let pid = process.pid;
        match found {
            // It may have become a target, or another program, since the search began.
            Some(_) if targets.target(pid).is_some() || !self.is_unchanged(targets, &process) => {}
            Some(error) => self.admit_or_warn(targets, process, None, Some(error)),
            None => info!(
                "process {pid} ({}) was named but is neither Go nor tokio",
                process.exe.display()
            ),
        }
    }
}
