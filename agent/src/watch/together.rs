//! Which windows fall together: the hooks of several targets, since each calls those of all; the probes' and the hooks' of one.

use super::SHORTEST_HOOKS;
use crate::{
    budget::{Guest, Ledger, Turn, Window},
    model::MonoNs,
    target::Target,
};

/// How long a window of the probes waits for one of the hooks, ns.
const TOGETHER: u64 = 60_000_000_000;

/// Targets, by pid, that have no window of the hooks and cannot pay for another's.
pub(super) fn refusing<'a>(targets: impl Iterator<Item = &'a Target>) -> Vec<u32> {
    let refuses =
        |target: &&Target| !target.hooks.window.is_wanted() && !target.guest.as_ref().is_none_or(Guest::agrees);
    targets.filter(refuses).map(|target| target.process.pid).collect()
}

/// What becomes of a target's window of the hooks, where its own account says `turn`, while others are `refusing` to pay for it: none
/// is opened but the first, and one that had its shortest time is closed.
pub(super) fn among(target: &mut Target, turn: Turn, refusing: &[u32], now: MonoNs) -> Turn {
    let other = refusing.iter().find(|pid| **pid != target.process.pid).copied();
    let first = target.known.hooks_since == 0;
    let had = |since: MonoNs| u128::from(now.0.saturating_sub(since.0)) >= SHORTEST_HOOKS.as_nanos();
    match (turn, target.hooks.window, other) {
        (Turn::Open, _, Some(_)) if !first => {
            target.hooks.refused = other;
            Turn::Stay
        }
        (Turn::Stay, Window::Open { since }, Some(_)) if had(since) => {
            target.hooks.refused = other;
            Turn::Close
        }
        (Turn::Close, _, _) => {
            target.hooks.refused = None;
            Turn::Close
        }
        (turn, _, _) => turn,
    }
}

/// Whether a window of the probes that is paid for waits for one of the hooks: only within that is it known what goroutines'
/// threads do, and so why what is runnable does not run. Not for longer than [`TOGETHER`], and not for hooks that are too dear.
pub(super) fn waits_for_hooks(target: &mut Target, now: MonoNs) -> bool {
    let ledger = target.hooks.ledger.as_ref();
    let apart = !target.hooks.window.is_open() && !ledger.is_some_and(Ledger::is_starved);
    let since = target.probes.waits.get_or_insert(now).0;
    let waits = apart && now.0.saturating_sub(since) < TOGETHER;
    if !waits {
        target.probes.waits = None;
    }
    waits
}
