//! Windows of planes that have probes: plane 2, those of goroutines and tasks, and plane 2s, that of the runtime's own sample.

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

/// The planes of probes.
pub(in crate::watch) const PROBED: [Plane; 2] = [Plane::Sample, Plane::Probes];

impl Planes {
    /// Opens a window of a plane of probes: attaches them, and with those of plane 2 those that are always attached and could not be before.
    pub(in crate::watch) fn open_probes(&mut self, watched: &mut Watched, plane: Plane) {
        watched.capacity = Capacity::of(watched.target.process.pid);
        watched.plane_mut(plane).window = Window::Busy;
        let probes = watched.plane(plane).probes.clone();
        let missing = if plane == Plane::Probes {
            watched.always.missing.clone()
        } else {
            Vec::new()
        };
        self.windows
            .open(watched.target.id, plane, watched.loaded_exe(), probes, missing);
    }

    /// Tries to attach probes that are always attached and could not be before, while no window is open.
    pub(in crate::watch) fn retry_always(&mut self, watched: &mut Watched) {
        watched.probes.window = Window::Busy;
        let missing = watched.always.missing.clone();
        self.windows.retry(watched.target.id, watched.loaded_exe(), missing);
    }

    /// Closes the window of a plane of probes, and detaches them.
    pub(in crate::watch) fn close_probes(&mut self, watched: &mut Watched, plane: Plane) -> Option<PendingInterval> {
        let pending = self.close(watched, plane);
        let plane_state = watched.plane_mut(plane);
        plane_state.window = Window::Busy;
        let links = std::mem::take(&mut plane_state.links);
        self.windows.close(watched.target.id, plane, links);
        pending
    }

    /// Takes over a finished change of a target's probes.
    pub(super) fn on_probes_done(&mut self, targets: &mut TargetTable, target_id: u32, plane: Plane, change: Change) {
        match (targets.active(target_id), change) {
            (Some(watched), Change::Opened { outcome, always }) => {
                self.on_probes_attached(watched, plane, outcome, always);
            }
            (Some(watched), Change::Closed) => watched.plane_mut(plane).closed(),
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
                self.detach_from_ended((target_id, plane), [outcome.links, always.links]);
            }
            (None, Change::Retried { always }) => self.detach_from_ended((target_id, plane), [always.links]),
            (None, Change::Closed) => {
                self.detaching.remove_change((target_id, plane));
            }
        }
    }

    /// Detaches probes that were attached by a change after its target ended.
    fn detach_from_ended<const N: usize>(&mut self, change: (u32, Plane), links: [Links; N]) {
        let pid = self.detaching.remove_change(change);
        for links in links {
            let task = self.windows.detach(links);
            if let Some(pid) = pid {
                self.detaching.add(pid, task);
            }
        }
    }

    fn on_probes_attached(&mut self, watched: &mut Watched, plane: Plane, outcome: Outcome, always: Outcome) {
        let is_first = !watched.plane(plane).was_opened();
        let has_ended = !outcome.failures.is_empty() && !watched.target.process.is_alive();
        let plane_state = watched.plane_mut(plane);
        plane_state.links = outcome.links;
        if has_ended {
            debug!("process {} ended while it was attached", watched.target.process.pid);
        } else if plane == Plane::Probes {
            let lost = self.update_types(watched, &outcome.missing);
            let failures = outcome.failures.into_iter().chain(lost).collect();
            watched.set_failures(|failures| &mut failures.probes, failures);
            watched.add_always(always);
        } else {
            plane_state.attempts = if outcome.failures.is_empty() {
                0
            } else {
                plane_state.attempts + 1
            };
            watched.set_failures(|failures| &mut failures.sample, outcome.failures);
        }
        let now = clock::now();
        if plane == Plane::Probes {
            watched.known.probes_since = now.0;
        }
        self.open(watched, plane, is_first, now);
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
