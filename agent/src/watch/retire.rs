//! The one way in which a target ends, whatever ends it. At once the kernel side is told that the process is no target any more,
//! and its probes are taken out. Reading its last figures and tidying the kernel's maps costs the same for one as for a hundred: that
//! is done for all that ended meanwhile, at the pipeline's next tick.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use agent_common::hits::Probe;
use tokio::task::JoinHandle;

use super::{Watch, Watched, Window, govern::Settled};
use crate::{budget::Plane, clock, model::MonoNs};

/// How long a target that ended is kept at the least, ns: programs that were under way when it was dismissed are over.
const LEAST: u64 = 50_000_000;
/// How long probes that are being taken out keep new ones from the same process.
const WORTH: Duration = Duration::from_secs(30);

/// Why a process is watched no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The process ended.
    Ended,
    /// It became another program.
    Execed,
    /// It could not be attached whole; nothing that was counted of it counts.
    Refused,
}

/// A target that ended, until its last figures are read.
pub struct Retired {
    pub watched: Watched,
    pub why: Why,
    since: MonoNs,
}

impl Watch {
    /// Ends a target; what its open windows saw is to be settled. None when it ended before.
    pub fn retire(&mut self, target_id: u32, why: Why) -> Option<Vec<Settled>> {
        let pid = self.by_id.remove(&target_id)?;
        let watched = self.targets.remove(&pid)?;
        Some(self.dismiss(watched, why))
    }

    /// The same of one that is not among the targets, or not yet.
    pub(super) fn dismiss(&mut self, mut watched: Watched, why: Why) -> Vec<Settled> {
        let (pid, target_id) = (watched.target.process.pid, watched.target.id);
        if let Err(error) = self.maps.dismiss(pid) {
            self.maps.note(&error);
        }
        if let Some(end) = &watched.end {
            // Its process may go on, as another program.
            end.abort();
        }
        self.hook_set.release(target_id, &self.windows);
        for links in [&mut watched.links, &mut watched.probes.links] {
            let task = self.windows.detach(std::mem::take(links));
            if why != Why::Ended {
                self.leaving.add(pid, task);
            }
        }
        if why != Why::Ended && watched.probes.window == Window::Busy {
            self.leaving.wait_for(target_id, pid);
        }
        self.last_hits(&mut watched);
        (watched.made, watched.over) = (self.maps.made(&watched.known), self.maps.over(&watched.known));
        let since = clock::now();
        let mut settled = Vec::new();
        for plane in [Plane::Hooks, Plane::Probes] {
            let cut = self.cut(&watched, plane);
            let plane_state = match plane {
                Plane::Hooks => &mut watched.hooks,
                Plane::Probes => &mut watched.probes,
            };
            // While windows were always open, figures are the kernel's own counts.
            if let (Window::Open { since: opened }, true) = (plane_state.window, plane_state.weighed) {
                let stretch = plane_state.settle(opened, cut.unwrap_or(since), since, false);
                settled.push(Settled {
                    target_id,
                    plane,
                    stretch,
                });
            }
            plane_state.window = Window::None;
        }
        self.ended += usize::from(why != Why::Refused);
        self.retired.push(Retired { watched, why, since });
        settled
    }

    /// Takes note of what targets have made of the kernel's maps, and could not.
    pub fn note_made(&mut self) {
        for watched in self.targets.values_mut() {
            (watched.made, watched.over) = (self.maps.made(&watched.known), self.maps.over(&watched.known));
        }
    }

    /// What it cost since the governor's last turn.
    fn last_hits(&self, watched: &mut Watched) {
        // Without them the last turn's figures stand.
        let hits = match self.meter.hits(watched.known.index) {
            Ok(hits) => hits,
            Err(error) => return self.maps.note(&error),
        };
        for (index, (probe, _)) in Probe::ALL.iter().enumerate() {
            let new = hits[index].saturating_sub(watched.overhead.hits[index]);
            watched.overhead.by_kind[index] += new as f64 * self.meter.costs.of(*probe);
        }
        watched.overhead.hits = hits;
    }

    /// Whether there are targets that ended, whose last figures wait to be read.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Ids of targets of which the kernel's maps hold something that counts: of targets, and of those that have just ended; with `ending` of
    /// targets only.
    pub fn kept(&self, ending: bool) -> HashSet<u32> {
        let now = clock::now();
        let recent = self.retired.iter().filter(|retired| !ending && !retired.is_over(now));
        let recent = recent.map(|retired| retired.watched.target.id);
        self.by_id.keys().copied().chain(recent).collect()
    }

    /// Takes out those that are `gone`, by id, and tidies the kernel's maps.
    pub fn bury(&mut self, gone: impl Fn(u32) -> bool) -> Vec<Retired> {
        let retired = std::mem::take(&mut self.retired).into_iter();
        let (over, recent): (Vec<_>, Vec<_>) = retired.partition(|retired| gone(retired.watched.target.id));
        self.retired = recent;
        if !over.is_empty() {
            self.maps.forget(gone);
        }
        // Only now: programs go by what stands at their index.
        for retired in &over {
            self.places.give_back(retired.watched.known.index);
        }
        over
    }
}

/// Probes that are being taken out of processes that go on, as other programs: new ones wait for that, or both would be hit.
#[derive(Default)]
pub(super) struct Leaving {
    /// By pid, with when the last was added.
    tasks: HashMap<u32, (Instant, Vec<JoinHandle<()>>)>,
    /// Pids by target id, of targets that ended while probes were being attached or detached, and when they did.
    under_way: HashMap<u32, (u32, Instant)>,
}

impl Leaving {
    /// A task that takes probes out.
    pub(super) fn add(&mut self, pid: u32, task: JoinHandle<()>) {
        let entry = self.tasks.entry(pid);
        let (since, tasks) = entry.or_insert_with(|| (Instant::now(), Vec::new()));
        *since = Instant::now();
        tasks.push(task);
    }

    /// Such a task follows, or is over, when what is under way for a target is.
    fn wait_for(&mut self, target_id: u32, pid: u32) {
        self.under_way.insert(target_id, (pid, Instant::now()));
    }

    /// What was under way for a target is over: its pid, if it was waited for.
    pub(super) fn over(&mut self, target_id: u32) -> Option<u32> {
        self.under_way.remove(&target_id).map(|(pid, _)| pid)
    }

    /// Whether there are any of a process, for as long as they are worth waiting for.
    pub(super) fn is_leaving(&mut self, pid: u32) -> bool {
        self.tidy();
        self.tasks.contains_key(&pid) || self.under_way.values().any(|(of, _)| *of == pid)
    }

    /// Forgets what is over.
    pub(super) fn tidy(&mut self) {
        self.tasks.retain(|_, (since, tasks)| {
            tasks.retain(|task| !task.is_finished());
            !tasks.is_empty() && since.elapsed() < WORTH
        });
        self.under_way.retain(|_, (_, since)| since.elapsed() < WORTH);
    }
}

impl Retired {
    fn is_over(&self, now: MonoNs) -> bool {
        now.0.saturating_sub(self.since.0) >= LEAST
    }
}
