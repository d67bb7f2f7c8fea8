//! What the kernel's maps hold of what is over, window or no window: it takes room from what is not.

use std::collections::{HashMap, HashSet};

use super::{Target, Watch};
use crate::{budget::Duty, clock, discover};

/// How long a task that was woken may wait to be polled, ns: one that is dropped instead never is, and leaves its time behind.
const WAITS: u64 = 600_000_000_000;

impl Watch {
    /// Removes it. To be called now and then: it looks at every entry.
    pub fn clear(&mut self) {
        let closed = |duty: fn(&Target) -> &Duty| -> HashSet<u32> {
            let closed = self.targets.values().filter(|target| !duty(target).window.is_open());
            closed.map(|target| target.slot).collect()
        };
        let hooks = closed(|target| &target.hooks);
        if !hooks.is_empty() {
            self.maps.clear_hooks(|slot| hooks.contains(&slot));
        }
        // Of closed windows all, of those that are open what was before them.
        let begins: HashMap<u32, u64> = self
            .targets
            .values()
            .map(|target| {
                let is_open = target.probes.window.is_open();
                (target.slot, if is_open { target.known.probes_since } else { u64::MAX })
            })
            .collect();
        let old = clock::now().0.saturating_sub(WAITS);
        self.maps
            .clear_probes(|slot| begins.get(&slot).copied().unwrap_or(0), old);
        self.clear_threads();
        // What a program that was under way added to a target that was forgotten.
        let retired: HashSet<u32> = self.retired.iter().map(|retired| retired.target.slot).collect();
        self.maps
            .forget(|slot| !self.by_slot.contains_key(&slot) && !retired.contains(&slot));
        let targets: Vec<_> = self.targets.values().map(|target| target.known).collect();
        self.maps.count_held(&targets);
        self.leaving.tidy();
    }

    /// Removes what is kept of threads that are no more. They are removed as they end, but for those that ended before their process
    /// was a target, or were seen once more while they did.
    fn clear_threads(&mut self) {
        // First what is kept, then who lives: a thread that comes meanwhile is no dead one.
        let kept = match self.maps.threads() {
            Ok(kept) => kept,
            Err(error) => return self.maps.note(&error),
        };
        let mut dead = Vec::new();
        for (slot, threads) in kept {
            // Of a process that has just ended all goes with it.
            let Some(Ok(alive)) = self.by_slot.get(&slot).map(|pid| discover::process::threads(*pid)) else {
                continue;
            };
            dead.extend(threads.into_iter().filter(|thread| !alive.contains(thread)));
        }
        self.maps.forget_threads(&dead);
    }
}
