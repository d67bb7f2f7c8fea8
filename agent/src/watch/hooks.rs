//! The kernel's hooks that are called very often: attached while a target's window is open, or about to be. What is not
//! attached costs nothing, neither targets nor the rest of the host.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use log::{info, warn};

use crate::attach::{
    kernel::{AttachedHook, DetachedHook, HookState},
    plan::Failure,
    windows::{Hooks, Windows},
};

/// How long until a hook that was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The hooks, and the ids of targets that want them.
#[derive(Debug, Default)]
pub struct HookSet {
    attached: Vec<AttachedHook>,
    detached: Vec<DetachedHook>,
    /// Whether some are being attached or detached.
    moving: bool,
    /// Hooks that could not be attached when they were last wanted.
    refused: BTreeMap<&'static str, Refusal>,
    wanted: HashSet<u32>,
    /// Without a budget they stay where they are.
    stays: bool,
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    /// Not tried before.
    next: Instant,
}

/// What is to be done.
#[derive(Debug)]
enum Move {
    Attach(Vec<DetachedHook>),
    Detach(Vec<AttachedHook>),
}

impl HookSet {
    /// Takes over what is windowed among `hooks`, all of it attached.
    pub fn new(hooks: &mut [HookState], stays: bool) -> Self {
        Self {
            attached: hooks.iter_mut().filter_map(|hook| hook.attached.take()).collect(),
            stays,
            ..Self::default()
        }
    }

    /// A target wants them; whether it need not wait for them. Otherwise see [`Self::done`].
    pub fn want(&mut self, target_id: u32, windows: &Windows) -> bool {
        self.wanted.insert(target_id);
        self.turn(windows);
        self.is_ready()
    }

    /// A target wants them no more, if it ever did.
    pub fn release(&mut self, target_id: u32, windows: &Windows) {
        self.wanted.remove(&target_id);
        self.turn(windows);
    }

    /// Whether they are, or are about to be or were a moment ago.
    pub fn is_attached(&self) -> bool {
        self.moving || !self.attached.is_empty()
    }

    /// Whether a signal's hook is in place.
    pub fn counts(&self, signal: &str) -> bool {
        self.attached.iter().any(|hook| hook.signal == signal)
    }

    /// What is missing of them now, while they are wanted.
    pub fn failures(&self) -> Vec<Failure> {
        let refused = self.refused.iter();
        refused
            .map(|(signal, refusal)| Failure {
                signal,
                essential: true,
                reason: format!("the kernel refused it just now: {}", refusal.reason),
            })
            .collect()
    }

    /// What was under way is done: the ids of targets that have waited for it.
    pub fn done(&mut self, done: Hooks, windows: &Windows) -> Vec<u32> {
        self.note(done, Instant::now());
        self.turn(windows);
        if self.is_ready() {
            self.wanted.iter().copied().collect()
        } else {
            Vec::new()
        }
    }

    /// Attaches what is wanted, detaches what is not.
    pub fn turn(&mut self, windows: &Windows) {
        match self.step(Instant::now()) {
            Some(Move::Attach(hooks)) => windows.attach_hooks(hooks),
            Some(Move::Detach(hooks)) => windows.detach_hooks(hooks),
            None => {}
        }
    }

    /// Whether all are in place that can be now.
    fn is_ready(&self) -> bool {
        !self.moving || !self.attached.is_empty()
    }

    fn note(&mut self, done: Hooks, now: Instant) {
        self.moving = false;
        match done {
            Hooks::Attached { hooks, refused } => {
                for hook in &hooks {
                    if self.refused.remove(hook.signal).is_some() {
                        info!("{} is on again", hook.signal);
                    }
                }
                self.attached.extend(hooks);
                for (hook, reason) in refused {
                    if self
                        .refused
                        .get(hook.signal)
                        .is_none_or(|before| before.reason != reason)
                    {
                        warn!(
                            "{} is off until the next attempt: the kernel refused a hook that it permitted before: {reason}",
                            hook.signal
                        );
                    }
                    let next = now + RETRY;
                    self.refused.insert(hook.signal, Refusal { reason, next });
                    self.detached.push(hook);
                }
            }
            Hooks::Detached(hooks) => self.detached.extend(hooks),
        }
    }

    fn step(&mut self, now: Instant) -> Option<Move> {
        let wanted = self.stays || !self.wanted.is_empty();
        let next = if self.moving {
            None
        } else if wanted {
            let refused = &self.refused;
            let waits = |hook: &DetachedHook| refused.get(hook.signal).is_some_and(|refusal| now < refusal.next);
            let (later, due) = std::mem::take(&mut self.detached).into_iter().partition(waits);
            self.detached = later;
            Some(Move::Attach(due)).filter(|next| !next.is_empty())
        } else {
            Some(Move::Detach(std::mem::take(&mut self.attached))).filter(|next| !next.is_empty())
        };
        self.moving |= next.is_some();
        next
    }
}

impl Move {
    fn is_empty(&self) -> bool {
        match self {
            Self::Attach(hooks) => hooks.is_empty(),
            Self::Detach(hooks) => hooks.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET_ID: u32 = 7;

    fn detached(signal: &'static str) -> DetachedHook {
        DetachedHook {
            signal,
            programs: Vec::new(),
        }
    }

    fn set() -> HookSet {
        HookSet {
            attached: vec![AttachedHook::bare("one"), AttachedHook::bare("two")],
            ..HookSet::default()
        }
    }

    /// What is to be done next, in words.
    fn step(set: &mut HookSet, now: Instant) -> String {
        match set.step(now) {
            None => "nothing".to_owned(),
            Some(Move::Attach(hooks)) => hooks
                .iter()
                .fold("attach".to_owned(), |text, hook| text + " " + hook.signal),
            Some(Move::Detach(hooks)) => hooks
                .iter()
                .fold("detach".to_owned(), |text, hook| text + " " + hook.signal),
        }
    }

    fn refused(set: &HookSet) -> Vec<&'static str> {
        set.failures().iter().map(|failure| failure.signal).collect()
    }

    /// Detached, and wanted again.
    fn wanted_again(now: Instant) -> HookSet {
        let mut set = set();
        assert_eq!(step(&mut set, now), "detach one two");
        assert_eq!(step(&mut set, now), "nothing");
        assert!(set.is_attached() && !set.is_ready());
        set.note(Hooks::Detached(vec![detached("one"), detached("two")]), now);
        assert!(!set.is_attached());
        set.wanted.insert(TARGET_ID);
        assert_eq!(step(&mut set, now), "attach one two");
        assert!(!set.is_ready());
        set
    }

    fn attached(of: &[&'static str], refused: &[&'static str]) -> Hooks {
        let refused = refused.iter().map(|signal| (detached(signal), "no room".to_owned()));
        Hooks::Attached {
            hooks: of.iter().map(|signal| AttachedHook::bare(signal)).collect(),
            refused: refused.collect(),
        }
    }

    #[test]
    fn they_are_there_while_they_are_wanted() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.note(attached(&["one", "two"], &[]), now);
        assert!(set.is_ready() && set.counts("one") && set.counts("two"));
        assert_eq!(step(&mut set, now), "nothing");
        set.wanted.clear();
        assert_eq!(step(&mut set, now), "detach one two");
        set.stays = true;
        set.note(Hooks::Detached(vec![detached("one")]), now);
        assert_eq!(step(&mut set, now), "attach one");
    }

    #[test]
    fn one_that_is_refused_is_told_and_tried_until_it_is_back() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.note(attached(&["one"], &["two"]), now);
        // The other one counts meanwhile.
        assert!(set.is_ready() && set.counts("one") && !set.counts("two"));
        assert_eq!(refused(&set), ["two"]);
        assert_eq!(step(&mut set, now), "nothing");
        let later = now + RETRY;
        assert_eq!(step(&mut set, later), "attach two");
        assert!(set.is_ready(), "nobody waits for it");
        set.note(attached(&[], &["two"]), later);
        assert_eq!(
            (refused(&set), step(&mut set, later)),
            (vec!["two"], "nothing".to_owned())
        );
        assert_eq!(step(&mut set, later + RETRY), "attach two");
        set.note(attached(&["two"], &[]), later + RETRY);
        assert!(set.counts("two") && refused(&set).is_empty());
    }

    #[test]
    fn one_that_is_refused_is_wanted_with_the_next_window_too() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.note(attached(&["one"], &["two"]), now);
        set.wanted.clear();
        assert_eq!(step(&mut set, now), "detach one");
        set.note(Hooks::Detached(vec![detached("one")]), now);
        set.wanted.insert(TARGET_ID);
        assert_eq!(step(&mut set, now + RETRY), "attach two one");
    }

    #[test]
    fn nobody_waits_where_all_are_refused_or_there_is_none() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.note(attached(&[], &["one", "two"]), now);
        assert_eq!(step(&mut set, now), "nothing");
        assert!(set.is_ready() && !set.is_attached());
        assert_eq!(refused(&set), ["one", "two"]);
        assert!(HookSet::default().is_ready());
    }
}
