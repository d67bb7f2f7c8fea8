//! Which windows fall together: the hooks of several targets, since each calls those of all; the probes' and the hooks' of one.

use super::{SHORTEST_HOOKS, Watched, Window};
use crate::{
    budget::{Bystander, Decision, Ledger},
    model::MonoNs,
};

/// How long a window of the probes waits for one of the hooks, ns.
const TOGETHER: u64 = 60_000_000_000;

/// Targets, by pid, that have no window of the hooks and cannot pay for another's.
pub(super) fn refusing<'a>(targets: impl Iterator<Item = &'a Watched>) -> Vec<u32> {
    let refuses = |watched: &&Watched| {
        !watched.hooks.window.is_wanted() && !watched.bystander.as_ref().is_none_or(Bystander::agrees)
    };
    targets
        .filter(refuses)
        .map(|watched| watched.target.process.pid)
        .collect()
}

/// What becomes of a target's window of the hooks, where its own account says `turn`, while others are `refusing` to pay for it: none
/// is opened but the first, and one that had its shortest time is closed.
pub(super) fn among(watched: &mut Watched, turn: Decision, refusing: &[u32], now: MonoNs) -> Decision {
    let other = refusing.iter().find(|pid| **pid != watched.target.process.pid).copied();
    let first = watched.known.hooks_since == 0;
    let had = |since: MonoNs| u128::from(now.0.saturating_sub(since.0)) >= SHORTEST_HOOKS.as_nanos();
    match (turn, watched.hooks.window, other) {
        (Decision::Open, _, Some(_)) if !first => {
            watched.hooks.refused = other;
            Decision::Stay
        }
        (Decision::Stay, Window::Open { since }, Some(_)) if had(since) => {
            watched.hooks.refused = other;
            Decision::Close
        }
        (Decision::Close, _, _) => {
            watched.hooks.refused = None;
            Decision::Close
        }
        (turn, _, _) => turn,
    }
}

/// Whether a window of the probes that is paid for waits for one of the hooks: only within that is it known what goroutines'
/// threads do, and so why what is runnable does not run. Not for longer than [`TOGETHER`], and not for hooks that are too dear.
pub(super) fn waits_for_hooks(watched: &mut Watched, now: MonoNs) -> bool {
    let ledger = watched.hooks.ledger.as_ref();
    let apart = !watched.hooks.window.is_open() && !ledger.is_some_and(Ledger::is_starved);
    let since = watched.probes.waits.get_or_insert(now).0;
    let waits = apart && now.0.saturating_sub(since) < TOGETHER;
    if !waits {
        watched.probes.waits = None;
    }
    waits
}
