//! Removes entries of the kernel's maps that nothing will read any more: they take space in maps that all targets share.

use std::collections::{HashMap, HashSet};

use super::Planes;
use crate::{
    attach::maps::{Held, Standing},
    clock, discover,
    watch::TargetTable,
};

/// How long a task that was woken may wait to be polled, ns. One that is dropped is never polled, and leaves its entry.
const WAKE_LIMIT: u64 = 600_000_000_000;
/// How long the entry of a task is kept after its poll, ns: most tasks are woken again before.
const POLL_LIMIT: u64 = 60_000_000_000;

impl Planes {
    /// Removes such entries. It walks over all of them, so it should be called rarely.
    pub(in crate::watch) fn sweep(&mut self, targets: &TargetTable) {
        // Of closed windows nothing is kept, of open windows what is not older than the window, and everything of targets that have just ended,
        // until their last figures are read. Other targets are forgotten already, but a program that ran then may have added an entry since.
        let ended = targets.ended().map(|watched| (watched.target.id, Standing::WHOLE));
        let active = targets.iter().map(|watched| {
            let is_open = watched.probes.window.is_open();
            let standing = Standing {
                sockets: watched.sockets.window.is_open(),
                threads: watched.threads.window.is_open(),
                probes: if is_open { watched.known.probes_since } else { u64::MAX },
            };
            (watched.target.id, standing)
        });
        let standings: HashMap<u32, Standing> = ended.chain(active).collect();
        let now = clock::now().0;
        let (old, idle) = (now.saturating_sub(WAKE_LIMIT), now.saturating_sub(POLL_LIMIT));
        let mut held = self.maps.sweep(|id| standings.get(&id).copied(), old, idle);
        self.sweep_threads(targets, &mut held);
        let known: Vec<_> = targets.iter().map(|watched| watched.known).collect();
        self.maps.set_held(&known, &held);
        self.detaching.remove_finished();
    }

    /// Removes entries of threads that have exited. Programs remove them when a thread exits, but not those of threads that exited before
    /// their process was a target, or that were seen once more while they exited.
    fn sweep_threads(&mut self, targets: &TargetTable, held: &mut Held) {
        // The entries were listed before: a thread that starts now is not taken for one that exited. If the process has just ended, all its
        // entries go with it.
        let alive = |id: u32| discover::process::threads(targets.pid(id)?).ok();
        let ids = held.with_threads().into_iter();
        let alive: HashMap<u32, HashSet<u32>> = ids.filter_map(|id| Some((id, alive(id)?))).collect();
        let has_exited = |id, tid| alive.get(&id).is_some_and(|alive| !alive.contains(&tid));
        self.maps.forget_threads(held, has_exited);
    }
}
