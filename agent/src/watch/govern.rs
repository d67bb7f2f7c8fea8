//! Governs the planes of every target: measures what they cost, asks their ledgers, opens and closes their windows.

use std::{collections::HashMap, time::Duration};

use agent_common::{
    hits::Probe,
    target::{HOOKS_OPEN, PROBES_OPEN},
};
use log::info;

use super::{
    Failures, PlaneState, Watch, Watched, Window,
    together::{among, refusing, waits_for_hooks},
    turn::turn,
};
use crate::{
    attach::uprobe::Place,
    budget::{Decision, Plane, weigh::Interval},
    capacity::Capacity,
    clock,
    model::MonoNs,
};

/// A window that was open for so long is settled while it stays open, ns.
pub const LONG: u64 = 1_000_000_000;
/// How long until probes that could not be attached are tried again, ns: those of a window, which stays open without them so long, and
/// those that are always in place.
const AGAIN: u64 = 20_000_000_000;
/// How often that is doubled, one time after the other: to some 90 minutes.
const RARELY: u32 = 8;
/// How often a target is looked at, ns, but for one whose window was opened less than [`LONG`] ago: that one at every turn.
const CALM: u64 = 100_000_000;
/// How long until the governor's next turn: while a window is young, and else. Each turn wakes the agent on a core that services
/// need.
const SOON: Duration = Duration::from_millis(10);
const LATER: Duration = Duration::from_millis(50);

/// Figures that are to be settled with a reading of the kernel's maps taken now.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub target_id: u32,
    pub plane: Plane,
    pub stretch: Interval,
}

impl Watch {
    /// A turn of the governor. The result must be settled with a later reading; no window of that plane is opened before.
    pub fn govern(&mut self) -> Vec<Settled> {
        // One that was refused is tried again.
        self.hook_set.turn(&self.windows);
        let (now, mut all) = (clock::now(), [0; Probe::COUNT]);
        self.host.turn(now);
        let scales = self.scales();
        let tails: HashMap<u32, _> = self
            .targets
            .values()
            .map(|watched| (watched.target.id, self.tail(watched)))
            .collect();
        let (mut turns, attached) = (Vec::new(), self.hook_set.is_attached());
        for watched in self.targets.values_mut() {
            let young = is_young(&watched.hooks, now) || is_young(&watched.probes, now);
            if young || now.0.saturating_sub(watched.overhead.turned.0) >= CALM {
                match self.meter.hits(watched.known.index) {
                    Ok(hits) => {
                        let scale = self.places.allowed * scales.get(&watched.target.id).copied().unwrap_or(1.0);
                        let tail = tails[&watched.target.id];
                        turns.push((
                            watched.target.process.pid,
                            turn(watched, &self.meter.costs, hits, now, scale, tail, attached),
                        ));
                    }
                    Err(error) => self.maps.note(&error),
                }
            }
            for (all, hits) in all.iter_mut().zip(&watched.overhead.hits) {
                *all += hits;
            }
        }
        let open = self.targets.values().any(Watched::is_seen);
        if let Some(mut object) = self.windows.try_object() {
            self.meter.turn(&mut object, &all, open);
        }
        let (mut settled, refusing) = (Vec::new(), refusing(self.targets.values()));
        for (pid, (hooks, probes)) in turns {
            let Some(mut watched) = self.targets.remove(&pid) else {
                continue;
            };
            let hooks = among(&mut watched, hooks, &refusing, now);
            match self.cut(&watched, Plane::Hooks).map_or(hooks, |_| Decision::Close) {
                Decision::Stay => {}
                Decision::Open => self.open_hooks(&mut watched),
                Decision::Close => settled.extend(self.shut_hooks(&mut watched)),
            }
            let again = is_to_be_tried_again(&watched, now);
            let ends = again && watched.probes.window.is_open() || self.cut(&watched, Plane::Probes).is_some();
            let turn = if ends { Decision::Close } else { probes };
            // Those of a window that opens are tried with it.
            let again = again && turn != Decision::Open;
            watched.tries += u32::from(again);
            match turn {
                Decision::Open if waits_for_hooks(&mut watched, now) => {}
                Decision::Stay if again => self.try_again(&mut watched),
                Decision::Stay => {}
                Decision::Open => self.open_probes(&mut watched),
                Decision::Close => settled.extend(self.shut_probes(&mut watched)),
            }
            self.allow(&mut watched);
            self.targets.insert(pid, watched);
        }
        settled
    }

    /// How long until the next turn, where somebody waits for each or not.
    pub fn pace(&self, awaited: bool) -> Duration {
        let now = clock::now();
        let young = |watched: &Watched| is_young(&watched.hooks, now) || is_young(&watched.probes, now);
        if awaited || self.targets.values().any(young) {
            SOON
        } else {
            LATER
        }
    }

    /// When the kernel side ended a window by itself.
    pub(super) fn cut(&self, watched: &Watched, plane: Plane) -> Option<MonoNs> {
        let plane_state = match plane {
            Plane::Hooks => &watched.hooks,
            Plane::Probes => &watched.probes,
        };
        if !plane_state.window.is_open() {
            return None;
        }
        let cut = self.maps.cut(&watched.known, plane);
        let cut = cut.inspect_err(|error| self.maps.note(error));
        cut.ok().flatten().map(MonoNs)
    }

    /// Hits in a target's windows so far.
    pub(super) fn used(&self, watched: &Watched, plane: Plane) -> u64 {
        let used = self.maps.used(&watched.known, plane);
        used.inspect_err(|error| self.maps.note(error)).unwrap_or_default()
    }

    /// Tells the kernel side what open windows may still have.
    fn allow(&mut self, watched: &mut Watched) {
        let before = watched.known.allowance;
        for (plane, plane_state) in [(Plane::Hooks, &watched.hooks), (Plane::Probes, &watched.probes)] {
            if plane_state.window.is_open() {
                watched.known.allowance[plane as usize] = plane_state.allowance(self.used(watched, plane));
            }
        }
        if watched.known.allowance != before {
            self.tell(watched, 0);
        }
    }

    /// Windows that have been open for `least` ns, of planes whose figures are weighed.
    pub fn long_open(&mut self, least: u64) -> Vec<Settled> {
        let now = clock::now();
        let mut settled = Vec::new();
        for watched in self.targets.values_mut() {
            for (plane, plane_state) in [(Plane::Hooks, &mut watched.hooks), (Plane::Probes, &mut watched.probes)] {
                if let Window::Open { since } = plane_state.window
                    && plane_state.weighed
                    && now.0.saturating_sub(since.0) >= least
                {
                    settled.push(Settled {
                        target_id: watched.target.id,
                        plane,
                        stretch: plane_state.settle(since, now, now, false),
                    });
                }
            }
        }
        settled
    }

    fn open_hooks(&mut self, watched: &mut Watched) {
        watched.capacity = Capacity::of(watched.target.process.pid);
        if self.hook_set.want(watched.target.id, &self.windows) {
            self.hooks_opened(watched);
        } else {
            watched.hooks.window = Window::Busy;
        }
    }

    pub(super) fn hooks_opened(&mut self, watched: &mut Watched) {
        let now = clock::now();
        let first = watched.known.hooks_since == 0;
        if first {
            // What was before the first window is not what windows stand for.
            watched.hooks.settled = now;
        }
        watched.known.hooks_since = now.0;
        watched.known.threads_since = self.threads_since(now);
        watched.known.allowance[Plane::Hooks as usize] = watched.hooks.allowance(self.used(watched, Plane::Hooks));
        watched.known.flags |= HOOKS_OPEN;
        watched.hooks.window = Window::Open { since: now };
        self.clear_cut(watched, Plane::Hooks);
        self.tell(watched, HOOKS_OPEN);
        if first {
            announce(watched);
        }
    }

    fn shut_hooks(&mut self, watched: &mut Watched) -> Option<Settled> {
        let cut = self.cut(watched, Plane::Hooks);
        watched.known.flags &= !HOOKS_OPEN;
        self.tell(watched, 0);
        let settled = shut(watched.target.id, Plane::Hooks, &mut watched.hooks, cut);
        self.hook_set.release(watched.target.id, &self.windows);
        watched.hooks.window = Window::Closed;
        if let Some(ledger) = &mut watched.hooks.ledger {
            ledger.closed();
        }
        settled
    }

    pub(super) fn open_probes(&mut self, watched: &mut Watched) {
        watched.capacity = Capacity::of(watched.target.process.pid);
        watched.probes.window = Window::Busy;
        self.windows.open(
            watched.target.id,
            Place::of(&watched.target.process, watched.target.bias),
            watched.probes.probes.clone(),
            watched.missing.clone(),
        );
    }

    /// Tries what is always in place and could not be attached, where no window is open.
    fn try_again(&mut self, watched: &mut Watched) {
        watched.probes.window = Window::Busy;
        self.windows.again(
            watched.target.id,
            Place::of(&watched.target.process, watched.target.bias),
            watched.missing.clone(),
        );
    }

    /// Ends what the window counts, and detaches.
    fn shut_probes(&mut self, watched: &mut Watched) -> Option<Settled> {
        let cut = self.cut(watched, Plane::Probes);
        watched.known.flags &= !PROBES_OPEN;
        self.tell(watched, 0);
        let settled = shut(watched.target.id, Plane::Probes, &mut watched.probes, cut);
        watched.probes.window = Window::Busy;
        self.windows
            .close(watched.target.id, std::mem::take(&mut watched.probes.links));
        settled
    }

    pub(super) fn clear_cut(&mut self, watched: &Watched, plane: Plane) {
        if let Err(error) = self.maps.clear_cut(&watched.known, plane) {
            self.maps.note(&error);
        }
    }

    pub(super) fn tell(&mut self, watched: &Watched, opened: u32) {
        if let Err(error) = self.maps.update(&watched.known, opened) {
            self.maps.note(&error);
        }
    }
}

/// Says that a target is watched, when both planes were opened for the first time: from there on everything is seen.
pub(super) fn announce(watched: &Watched) {
    let probes = watched.probes.probes.is_empty() || watched.known.probes_since != 0;
    if !probes || watched.known.hooks_since == 0 {
        return;
    }
    info!(
        "watching {} (pid {}): {} probes",
        watched.target.resource.get("service.name").unwrap_or_default(),
        watched.target.process.pid,
        watched.links.len() + watched.probes.links.len()
    );
}

/// Whether probes could not be attached, and it is time to try them again: all by a window of them that has been open for long without
/// some, which is opened anew; where none is open, those that are always in place.
fn is_to_be_tried_again(watched: &Watched, now: MonoNs) -> bool {
    let Failures { always, probes, .. } = &watched.failures;
    let misses = match watched.probes.window {
        Window::Open { .. } => !always.is_empty() || !probes.is_empty(),
        Window::None | Window::Closed => !always.is_empty(),
        Window::Busy => false,
    };
    // What is refused for good is tried less and less often: closing a window costs what happens meanwhile.
    misses && now.0.saturating_sub(watched.tried.0) >= AGAIN << watched.tries.min(RARELY)
}

fn is_young(plane_state: &PlaneState, now: MonoNs) -> bool {
    matches!(plane_state.window, Window::Open { since } if now.0.saturating_sub(since.0) < LONG)
}

/// What a window that ends now, or ended when it was `cut`, has seen is to be settled.
fn shut(target_id: u32, plane: Plane, plane_state: &mut PlaneState, cut: Option<MonoNs>) -> Option<Settled> {
    let Window::Open { since } = plane_state.window else {
        return None;
    };
    plane_state.weighed = true;
    plane_state.unsettled = true;
    plane_state.cuts += u64::from(cut.is_some());
    let now = clock::now();
    Some(Settled {
        target_id,
        plane,
        stretch: plane_state.settle(since, cut.unwrap_or(now), now, true),
    })
}
