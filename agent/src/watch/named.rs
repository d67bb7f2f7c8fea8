//! A process that the user named by its pid: it must be there and be of use, or the run ends.

use log::info;

use super::{
    arrive::Refused,
    lifecycle::{Lifecycle, Targets},
};
use crate::{
    discover::{Process, objects},
    exit::{Exit, Fatal, of_process},
    inspect::InspectError,
};

impl Lifecycle {
    pub(super) fn admit_named(&mut self, targets: &mut impl Targets, pid: u32) -> anyhow::Result<()> {
        let process = Process::read_in(&self.root, pid).map_err(|error| Fatal::new(of_process(&error), error))?;
        let image = self.inspect(&process);
        let (image, error) = match image {
            Ok(Some(image)) => (Some(image), None),
            Ok(None) if let Some(error) = objects::answered_runtime_in(&process) => (None, Some(error)),
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
        targets.admit(self, process, image, error)
    }

    /// A process that the user named, if not by its pid, and whose executable is of no runtime that is known; what was found in its
    /// shared objects.
    pub(super) fn consider_host(&mut self, targets: &mut impl Targets, process: Process, found: Option<InspectError>) {
        let pid = process.pid;
        match found {
            // It may have become a target, or another program, meanwhile.
            Some(_) if targets.standing(pid).is_some() || !self.is_still(targets, &process) => {}
            Some(error) => {
                if let Err(error) = targets.admit(self, process.clone(), None, Some(error)) {
                    self.not_admitted(&process, &error);
                }
            }
            None => info!(
                "process {pid} ({}) was named but is neither Go nor tokio",
                process.exe.display()
            ),
        }
    }
}
