//! The life cycle of targets: which processes become targets, and when a target ends because its process became another program or another
//! process has its pid. In come exec events, scans of /proc and what inspections of executables found; out go calls of [`Targets`], which
//! admits and retires targets. It knows processes and executables, but not what is attached to them.

use std::{path::Path, sync::Arc};

use crate::{
    discover::{Process, Selector},
    inspect::{Image, InspectError},
    model::MonoNs,
};
use deferred::Deferred;
use scanner::Scanner;
use warnings::Warnings;

mod blocking;
mod check;
mod deferred;
mod images;
mod requested;
mod scanner;
#[cfg(test)]
mod tests;
mod warnings;

pub use images::{Images, Inspect, Inspection};
pub use scanner::Scan;

/// What the life cycle must know of a target.
pub struct TargetInfo<'a> {
    pub id: u32,
    /// The process as it was when it became a target.
    pub process: &'a Process,
    /// When it became a target.
    pub since: MonoNs,
}

/// Why a target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its process ended.
    Exited,
    /// Its process became another program.
    Execed,
    /// Not everything could be attached to it; nothing that was counted for it is reported.
    AttachFailed,
}

/// What became of a process that was to be admitted.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is a target; with the reason, if its runtime is not observed.
    Admitted { without_runtime: Option<String> },
    /// It is no target yet, because its runtime has not started.
    NotStarted,
}

/// The owner of the targets.
pub trait Targets {
    /// The target with a pid.
    fn target(&self, pid: u32) -> Option<TargetInfo<'_>>;

    /// Whether probes of a target that ended are still being detached from its process, which lives on.
    fn is_detaching(&mut self, pid: u32) -> bool;

    /// Makes a process a target. `error` is why its executable cannot be read in full. With `wait_for_start`, a process whose runtime has not
    /// started is left alone. After an error nothing of the process is kept.
    fn admit(
        &mut self,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
        wait_for_start: bool,
    ) -> anyhow::Result<Admission>;

    /// Ends a target.
    fn retire(&mut self, id: u32, reason: EndReason);
}

/// Decides which processes become targets.
pub struct Lifecycle {
    /// Where the proc filesystem is.
    root: Arc<Path>,
    selector: Selector,
    deferred: Deferred,
    pub scanner: Scanner,
    pub images: Images,
    warnings: Warnings,
}

impl Lifecycle {
    /// Nothing is scanned yet. `root` is where the proc filesystem is.
    pub fn new(root: Arc<Path>, selector: Selector, inspect: Inspect) -> Self {
        Self {
            scanner: Scanner::new(root.clone()),
            root,
            selector,
            deferred: Deferred::default(),
            images: Images::new(inspect),
            warnings: Warnings::default(),
        }
    }
}
