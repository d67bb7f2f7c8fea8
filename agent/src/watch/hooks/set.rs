//! Which hooks are attached, which are to be, and which the kernel refused. Decides what to do next; the caller does it.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use log::{info, warn};

use crate::attach::{
    kernel::{AttachedHook, DetachedHook},
    plan::Failure,
    windows,
};

/// How long until a hook that was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The hooks, and the targets that want them.
#[derive(Debug, Default)]
pub(super) struct HookSet {
    attached: Vec<AttachedHook>,
    detached: Vec<DetachedHook>,
    /// Whether a change runs.
    is_changing: bool,
    /// Hooks that could not be attached at the last attempt.
    refused: BTreeMap<&'static str, Refusal>,
    /// Ids of the targets that want them.
    wanted: HashSet<u32>,
    /// Without a budget they are always attached.
    always: bool,
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    /// When it is tried again.
    next: Instant,
}

/// A change of the hooks.
#[derive(Debug)]
pub(super) enum Change {
    Attach(Vec<DetachedHook>),
    Detach(Vec<AttachedHook>),
}

impl HookSet {
    pub(super) fn new(attached: Vec<AttachedHook>, always: bool) -> Self {
        Self {
            attached,
            always,
            ..Self::default()
        }
    }

    /// A target wants them.
    pub(super) fn add(&mut self, target_id: u32) {
        self.wanted.insert(target_id);
    }

    /// A target does not want them any more.
    pub(super) fn remove(&mut self, target_id: u32) {
        self.wanted.remove(&target_id);
    }

    /// The targets that want them.
    pub(super) fn wanted(&self) -> Vec<u32> {
        self.wanted.iter().copied().collect()
    }

    /// Whether any are attached, or change: they are about to be attached or were a moment ago.
    pub(super) fn is_attached(&self) -> bool {
        self.is_changing || !self.attached.is_empty()
    }

    /// Whether the hook of a signal is attached.
    pub(super) fn has(&self, signal: &str) -> bool {
        self.attached.iter().any(|hook| hook.signal == signal)
    }

    /// Whether all are attached that can be now.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_changing || !self.attached.is_empty()
    }

    /// Hooks that the kernel refused at the last attempt.
    pub(super) fn failures(&self) -> Vec<Failure> {
        let refused = self.refused.iter();
        refused
            .map(|(signal, refusal)| Failure {
                signal,
                essential: true,
                reason: format!("the kernel refused it just now: {}", refusal.reason),
            })
            .collect()
    }

    /// Takes over a finished change.
    pub(super) fn on_done(&mut self, done: windows::Hooks, now: Instant) {
        self.is_changing = false;
        match done {
            windows::Hooks::Attached { hooks, refused } => {
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
            windows::Hooks::Detached(hooks) => self.detached.extend(hooks),
        }
    }

    /// The next change: attaches the hooks if any target wants them, and otherwise detaches them. None if there is nothing to do, or a change
    /// runs.
    pub(super) fn next(&mut self, now: Instant) -> Option<Change> {
        let wanted = self.always || !self.wanted.is_empty();
        let next = if self.is_changing {
            None
        } else if wanted {
            let refused = &self.refused;
            let waits = |hook: &DetachedHook| refused.get(hook.signal).is_some_and(|refusal| now < refusal.next);
            let (later, due) = std::mem::take(&mut self.detached).into_iter().partition(waits);
            self.detached = later;
            Some(Change::Attach(due)).filter(|next| !next.is_empty())
        } else {
            Some(Change::Detach(std::mem::take(&mut self.attached))).filter(|next| !next.is_empty())
        };
        self.is_changing |= next.is_some();
        next
    }
}

impl Change {
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

    const TARGET: u32 = 7;

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

    /// The next change, in words.
    fn step(set: &mut HookSet, now: Instant) -> String {
        match set.next(now) {
            None => "nothing".to_owned(),
            Some(Change::Attach(hooks)) => hooks
                .iter()
                .fold("attach".to_owned(), |text, hook| text + " " + hook.signal),
            Some(Change::Detach(hooks)) => hooks
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
        set.on_done(windows::Hooks::Detached(vec![detached("one"), detached("two")]), now);
        assert!(!set.is_attached());
        set.wanted.insert(TARGET);
        assert_eq!(step(&mut set, now), "attach one two");
        assert!(!set.is_ready());
        set
    }

    fn attached(of: &[&'static str], refused: &[&'static str]) -> windows::Hooks {
        let refused = refused.iter().map(|signal| (detached(signal), "no space".to_owned()));
        windows::Hooks::Attached {
            hooks: of.iter().map(|signal| AttachedHook::bare(signal)).collect(),
            refused: refused.collect(),
        }
    }

    #[test]
    fn hooks_are_attached_while_they_are_wanted() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.on_done(attached(&["one", "two"], &[]), now);
        assert!(set.is_ready() && set.has("one") && set.has("two"));
        assert_eq!(step(&mut set, now), "nothing");
        set.wanted.clear();
        assert_eq!(step(&mut set, now), "detach one two");
        set.always = true;
        set.on_done(windows::Hooks::Detached(vec![detached("one")]), now);
        assert_eq!(step(&mut set, now), "attach one");
    }

    #[test]
    fn a_refused_hook_is_reported_and_tried_until_it_is_attached() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.on_done(attached(&["one"], &["two"]), now);
        // The other one counts meanwhile.
        assert!(set.is_ready() && set.has("one") && !set.has("two"));
        assert_eq!(refused(&set), ["two"]);
        assert_eq!(step(&mut set, now), "nothing");
        let later = now + RETRY;
        assert_eq!(step(&mut set, later), "attach two");
        assert!(set.is_ready(), "no target waits for it");
        set.on_done(attached(&[], &["two"]), later);
        assert_eq!(
            (refused(&set), step(&mut set, later)),
            (vec!["two"], "nothing".to_owned())
        );
        assert_eq!(step(&mut set, later + RETRY), "attach two");
        set.on_done(attached(&["two"], &[]), later + RETRY);
        assert!(set.has("two") && refused(&set).is_empty());
    }

    #[test]
    fn a_refused_hook_is_tried_with_the_next_window_too() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.on_done(attached(&["one"], &["two"]), now);
        set.wanted.clear();
        assert_eq!(step(&mut set, now), "detach one");
        set.on_done(windows::Hooks::Detached(vec![detached("one")]), now);
        set.wanted.insert(TARGET);
        assert_eq!(step(&mut set, now + RETRY), "attach two one");
    }

    #[test]
    fn no_target_waits_if_all_hooks_are_refused_or_there_are_none() {
        let now = Instant::now();
        let mut set = wanted_again(now);
        set.on_done(attached(&[], &["one", "two"]), now);
        assert_eq!(step(&mut set, now), "nothing");
        assert!(set.is_ready() && !set.is_attached());
        assert_eq!(refused(&set), ["one", "two"]);
        assert!(HookSet::default().is_ready());
    }
}
