//! Windows of plane 2, the probes of goroutines and tasks.

use log::debug;

use super::Planes;
use crate::{
    attach::{
        plan::{Failure, Probe},
        uprobe::{Links, Outcome},
        windows::Change,
    },
    budget::Plane,
    capacity::Capacity,
    clock, signals,
    watch::{PendingInterval, TargetTable, Watched, Window},
};

impl Planes {
    /// Opens a window: attaches its probes, and those that are always attached and could not be before.
    pub(in crate::watch) fn open_probes(&mut self, watched: &mut Watched) {
        watched.capacity = Capacity::of(watched.target.process.pid);
        watched.probes.window = Window::Busy;
        let (probes, missing) = (watched.probes.probes.clone(), watched.always.missing.clone());
        self.windows
            .open(watched.target.id, watched.loaded_exe(), probes, missing);
    }

    /// Tries to attach probes that are always attached and could not be before, while no window is open.
    pub(in crate::watch) fn retry_always(&mut self, watched: &mut Watched) {
        watched.probes.window = Window::Busy;
        let missing = watched.always.missing.clone();
        self.windows.retry(watched.target.id, watched.loaded_exe(), missing);
    }

    /// Closes the window, and detaches its probes.
    pub(in crate::watch) fn close_probes(&mut self, watched: &mut Watched) -> Option<PendingInterval> {
        let pending = self.close(watched, Plane::Probes);
        watched.probes.window = Window::Busy;
        let links = std::mem::take(&mut watched.probes.links);
        self.windows.close(watched.target.id, links);
        pending
    }

    /// Takes over a finished change of a target's probes.
    pub(super) fn on_probes_done(&mut self, targets: &mut TargetTable, target_id: u32, change: Change) {
        match (targets.active(target_id), change) {
            (Some(watched), Change::Opened { outcome, always }) => self.on_probes_attached(watched, outcome, always),
            (Some(watched), Change::Closed) => watched.probes.closed(),
            (Some(watched), Change::Retried { always }) => {
                watched.add_always(always);
                watched.probes.window = if watched.probes.probes.is_empty() {
                    Window::None
                } else {
                    Window::Closed
                };
            }
            // The target ended before that; its process may live on.
            (None, Change::Opened { outcome, always }) => {
                self.detach_from_ended(target_id, [outcome.links, always.links]);
            }
            (None, Change::Retried { always }) => self.detach_from_ended(target_id, [always.links]),
            (None, Change::Closed) => {
                self.detaching.remove_change(target_id);
            }
        }
    }

    /// Detaches probes that were attached after their target ended.
    fn detach_from_ended<const N: usize>(&mut self, target_id: u32, links: [Links; N]) {
        let pid = self.detaching.remove_change(target_id);
        for links in links {
            let task = self.windows.detach(links);
            if let Some(pid) = pid {
                self.detaching.add(pid, task);
            }
        }
    }

    fn on_probes_attached(&mut self, watched: &mut Watched, outcome: Outcome, always: Outcome) {
        let is_first = watched.known.probes_since == 0;
        let has_ended = !outcome.failures.is_empty() && !watched.target.process.is_alive();
        if has_ended {
            debug!("process {} ended while it was attached", watched.target.process.pid);
        } else {
            let lost = self.update_types(watched, &outcome.missing);
            let failures = outcome.failures.into_iter().chain(lost).collect();
            watched.set_failures(|failures| &mut failures.probes, failures);
            watched.add_always(always);
        }
        let now = clock::now();
        watched.probes.links = outcome.links;
        watched.known.probes_since = now.0;
        self.open(watched, Plane::Probes, is_first, now);
        if is_first && !has_ended {
            watched.log_if_complete();
        }
    }

    /// Writes to the kernel's maps for which types of tasks the end of a poll is not seen, if other probes are `missing` than in the last
    /// window. Returns what that takes from their signal. The window is not open yet, so no program uses the old entries.
    fn update_types(&mut self, watched: &mut Watched, missing: &[Probe]) -> Option<Failure> {
        let (image, before) = (watched.target.image.as_deref()?, !watched.missing_places.is_empty());
        let lost = signals::plan::lost(image, watched.target.bias, missing, before)?;
        if watched.missing_places != lost.places {
            // If the map had no space for some types, that was logged when the target was admitted.
            self.maps.set_types(watched.target.id, &lost.types);
            watched.missing_places = lost.places;
        }
        lost.failure
    }
}
