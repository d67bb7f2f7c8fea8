//! The life of processes, from when they are first seen: who is looked at, becomes a target, is left out for good or only for now, and
//! who is a target no more, as it became another program or another process has its pid. It decides by /proc and by what executables
//! are; what makes a process a target, and lets it go, is behind [`Targets`].

use std::{collections::HashSet, path::Path, path::PathBuf, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Settled, Why,
    arrive::Looked,
    early::Early,
    images::{Images, Inspect},
};
use crate::{
    discover::{Census, Process, Selector},
    inspect::{Image, InspectError},
    model::MonoNs,
};

/// A target, as far as its life goes.
pub struct Standing<'a> {
    pub target_id: u32,
    /// What it was when it became one.
    pub process: &'a Process,
    /// When that was.
    pub since: MonoNs,
}

/// Who has the targets.
pub trait Targets {
    /// The target at a pid.
    fn standing(&self, pid: u32) -> Option<Standing<'_>>;

    /// Whether probes of a target that ended are still being taken out of the process, which goes on.
    fn is_leaving(&mut self, pid: u32) -> bool;

    /// Makes a process a target, or leaves it to be looked at again where its runtime has not started. An error is why it is none; then
    /// nothing of it is kept.
    fn admit(
        &mut self,
        life: &mut Lifecycle,
        process: Process,
        image: Option<Arc<dyn Image>>,
        error: Option<InspectError>,
    ) -> anyhow::Result<()>;

    /// Ends a target; what its open windows saw is to be settled.
    fn retire(&mut self, target_id: u32, why: Why) -> Vec<Settled>;
}

/// Processes that are no targets, as far as they are known.
pub struct Lifecycle {
    /// Where the proc filesystem is.
    pub(super) root: Arc<Path>,
    pub(super) selector: Selector,
    pub(super) early: Early,
    /// Who was looked at; None while a look is under way.
    pub(super) census: Option<Census>,
    /// Processes that the next look shows again: there may be room for them then.
    pub(super) undecided: Vec<u32>,
    pub(super) census_to_pipeline: mpsc::Sender<Looked>,
    pub looks: mpsc::Receiver<Looked>,
    pub images: Images,
    /// Executables, and why was said that they are watched in part, or not.
    pub(super) said: HashSet<(PathBuf, String)>,
}

impl Lifecycle {
    /// Nobody was looked at yet; `root` is where the proc filesystem is.
    pub fn new(root: Arc<Path>, selector: Selector, inspect: Inspect) -> Self {
        let (census_to_pipeline, looks) = mpsc::channel(1);
        Self {
            census: Some(Census::new(root.clone())),
            root,
            selector,
            early: Early::default(),
            undecided: Vec::new(),
            census_to_pipeline,
            looks,
            images: Images::new(inspect),
            said: HashSet::new(),
        }
    }
}
