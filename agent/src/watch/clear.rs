//! What the kernel's maps hold of what is over, window or no window: it takes room from what is not.

use std::collections::{HashMap, HashSet};

use super::Watch;
use crate::{
    attach::maps::{Held, Standing},
    clock, discover,
};

/// How long a task that was woken may wait to be polled, ns: one that is dropped instead never is, and leaves its time behind.
const WAITS: u64 = 600_000_000_000;

impl Watch {
    /// Removes it. To be called now and then: it looks at every entry.
    pub fn clear(&mut self) {
        // Of closed windows nothing stays, of those that are open what is not from before them; of those that have just ended all, until
        // their last figures are read. The others were forgotten: a program that was under way may have added something since.
        let retired = self
            .retired
            .iter()
            .map(|retired| (retired.watched.target.id, Standing::WHOLE));
        let targets = self.targets.values().map(|watched| {
            let is_open = watched.probes.window.is_open();
            let standing = Standing {
                hooks: watched.hooks.window.is_open(),
                probes: if is_open { watched.known.probes_since } else { u64::MAX },
            };
            (watched.target.id, standing)
        });
        let stands: HashMap<u32, Standing> = retired.chain(targets).collect();
        let old = clock::now().0.saturating_sub(WAITS);
        let mut held = self.maps.sweep(|target_id| stands.get(&target_id).copied(), old);
        self.clear_threads(&mut held);
        let targets: Vec<_> = self.targets.values().map(|watched| watched.known).collect();
        self.maps.set_held(&targets, &held);
        self.leaving.tidy();
    }

    /// Removes what is kept of threads that are no more. They are removed as they end, but for those that ended before their process
    /// was a target, or were seen once more while they did.
    fn clear_threads(&mut self, held: &mut Held) {
        // What is kept was looked at before: a thread that comes meanwhile is no dead one. Of a process that has just ended all goes with it.
        let alive = |target_id: u32| discover::process::threads(*self.by_id.get(&target_id)?).ok();
        let target_ids = held.with_threads().into_iter();
        let alive: HashMap<u32, HashSet<u32>> = target_ids
            .filter_map(|target_id| Some((target_id, alive(target_id)?)))
            .collect();
        let is_dead = |target_id, tid| alive.get(&target_id).is_some_and(|alive| !alive.contains(&tid));
        self.maps.forget_threads(held, is_dead);
    }
}
