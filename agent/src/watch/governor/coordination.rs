//! Which windows are open at the same time: those of the hooks, because all targets share the hooks; and those of a target's probes, because
//! they need its hooks on threads.

use super::MIN_HOOKS_WINDOW;
use crate::{
    budget::{Bystander, Decision, Ledger, Plane},
    model::MonoNs,
    watch::{Watched, Window},
};

/// How long a window of the probes waits for one of the hooks, ns.
const HOOKS_WAIT: u64 = 5_000_000_000;

/// Targets, by pid, that have no window of a plane of hooks and whose budget does not pay for windows of others.
pub(super) fn blocking_pids<'a>(targets: impl Iterator<Item = &'a Watched>, plane: Plane) -> Vec<u32> {
    let blocks = |watched: &&Watched| {
        !watched.plane(plane).window.is_open_or_changing() && !watched.bystander.as_ref().is_none_or(Bystander::agrees)
    };
    targets
        .filter(blocks)
        .map(|watched| watched.target.process.pid)
        .collect()
}

/// What becomes of a target's window of a plane of hooks, if its own ledger decides `own`: while other targets are `blocking`, only a first window
/// opens, and a window that was open for the shortest time closes.
pub(super) fn coordinate_hooks(
    watched: &mut Watched,
    plane: Plane,
    own: Decision,
    blocking: &[u32],
    now: MonoNs,
) -> Decision {
    let other = blocking.iter().find(|pid| **pid != watched.target.process.pid).copied();
    let hooks = watched.plane_mut(plane);
    let is_first = !hooks.was_opened();
    let is_long_enough = |since: MonoNs| u128::from(now.0.saturating_sub(since.0)) >= MIN_HOOKS_WINDOW.as_nanos();
    match (own, hooks.window, other) {
        (Decision::Open, _, Some(_)) if !is_first => {
            hooks.blocked_by = other;
            Decision::Stay
        }
        (Decision::Stay, Window::Open { since }, Some(_)) if is_long_enough(since) => {
            hooks.blocked_by = other;
            Decision::Close
        }
        (Decision::Close, _, _) => {
            hooks.blocked_by = None;
            Decision::Close
        }
        (own, _, _) => own,
    }
}

/// Whether a window of the probes that the budget pays for waits for a window of the hooks on threads: only within that one it is known what the threads of
/// goroutines do, and so why a runnable goroutine does not run. It waits for [`HOOKS_WAIT`] at most, and not if hooks are too expensive.
pub(super) fn waits_for_threads(watched: &mut Watched, now: MonoNs) -> bool {
    let ledger = watched.threads.ledger.as_ref();
    let may_wait = !watched.threads.window.is_open() && !ledger.is_some_and(Ledger::is_starved);
    let since = watched.probes.waiting_since.get_or_insert(now).0;
    let waits = may_wait && now.0.saturating_sub(since) < HOOKS_WAIT;
    if !waits {
        watched.probes.waiting_since = None;
    }
    waits
}
