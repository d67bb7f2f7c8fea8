//! The table of targets: by pid, by id, and those that ended until their last figures are read. It assigns ids and indices.

use std::collections::{HashMap, HashSet};

use super::Watched;
use crate::{lifecycle::EndReason, model::MonoNs};

mod indices;

pub use indices::Indices;

/// How long a target that ended is kept at least, ns: after that no kernel program still uses its entries.
const MIN_KEPT: u64 = 50_000_000;

/// A target that ended, until its last figures are read.
pub struct Ended {
    pub watched: Watched,
    pub reason: EndReason,
    pub(super) time: MonoNs,
}

impl Ended {
    fn is_settled(&self, now: MonoNs) -> bool {
        now.0.saturating_sub(self.time.0) >= MIN_KEPT
    }
}

/// All targets.
pub struct TargetTable {
    by_pid: HashMap<u32, Watched>,
    /// Pids by target id.
    pids: HashMap<u32, u32>,
    ended: Vec<Ended>,
    indices: Indices,
    next_id: u32,
    /// Targets that ended so far, without those that could not be attached.
    pub ended_count: usize,
}

impl Default for TargetTable {
    fn default() -> Self {
        Self {
            by_pid: HashMap::new(),
            pids: HashMap::new(),
            ended: Vec::new(),
            indices: Indices::default(),
            next_id: 1,
            ended_count: 0,
        }
    }
}

impl TargetTable {
    /// Whether there are none, apart from those that ended.
    pub fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }

    /// All targets, without those that ended.
    pub fn iter(&self) -> impl Iterator<Item = &Watched> {
        self.by_pid.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.by_pid.values_mut()
    }

    /// All targets, with those that ended and whose last figures are not read yet.
    pub fn with_ended(&mut self) -> impl Iterator<Item = &mut Watched> {
        let ended = self.ended.iter_mut().map(|ended| &mut ended.watched);
        self.by_pid.values_mut().chain(ended)
    }

    /// Targets that ended and whose last figures are not read yet.
    pub fn ended(&self) -> impl Iterator<Item = &Watched> {
        self.ended.iter().map(|ended| &ended.watched)
    }

    /// The target with a pid.
    pub fn by_pid(&self, pid: u32) -> Option<&Watched> {
        self.by_pid.get(&pid)
    }

    pub(super) fn by_pid_mut(&mut self, pid: u32) -> Option<&mut Watched> {
        self.by_pid.get_mut(&pid)
    }

    /// The pid of a target that has not ended.
    pub(super) fn pid(&self, id: u32) -> Option<u32> {
        self.pids.get(&id).copied()
    }

    /// A target that has not ended.
    pub(super) fn active(&mut self, id: u32) -> Option<&mut Watched> {
        self.by_pid.get_mut(self.pids.get(&id)?)
    }

    /// The target of an event, also one that ended and whose last figures are not read yet.
    pub fn by_id(&mut self, id: u32) -> Option<&mut Watched> {
        match self.pids.get(&id) {
            Some(pid) => self.by_pid.get_mut(pid),
            None => {
                let mut ended = self.ended.iter_mut().map(|ended| &mut ended.watched);
                ended.find(|watched| watched.target.id == id)
            }
        }
    }

    /// The index of the next target; see [`Indices::next`].
    pub(super) fn next_index(&self, budget_scale: f64) -> anyhow::Result<u32> {
        self.indices.next(self.by_pid.len(), budget_scale)
    }

    /// Marks that index as used.
    pub(super) fn take_index(&mut self) {
        self.indices.take();
    }

    /// An id for a new target. None is used twice.
    pub(super) fn new_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Adds a target.
    pub(super) fn insert(&mut self, watched: Watched) {
        let (id, pid) = (watched.target.id, watched.target.process.pid);
        self.pids.insert(id, pid);
        self.by_pid.insert(pid, watched);
    }

    /// Takes out a target; None if it ended before.
    pub(super) fn remove(&mut self, id: u32) -> Option<Watched> {
        let pid = self.pids.remove(&id)?;
        self.by_pid.remove(&pid)
    }

    /// Adds a target that ended; its index stays in use.
    pub(super) fn add_ended(&mut self, watched: Watched, reason: EndReason, time: MonoNs) {
        self.ended_count += usize::from(reason != EndReason::AttachFailed);
        self.ended.push(Ended { watched, reason, time });
    }

    /// Whether any target ended whose last figures are not read yet.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Ids whose entries a reading of the kernel's maps at `now` must keep: those of targets, and of targets that ended a moment ago. At the
    /// end of a run (`is_last`) those of targets only.
    pub fn kept_ids(&self, now: MonoNs, is_last: bool) -> HashSet<u32> {
        let recent = self.ended.iter().filter(|ended| !is_last && !ended.is_settled(now));
        let recent = recent.map(|ended| ended.watched.target.id);
        self.pids.keys().copied().chain(recent).collect()
    }

    /// Takes out those that ended and whose ids are `gone`.
    pub(super) fn take_ended(&mut self, gone: impl Fn(u32) -> bool) -> Vec<Ended> {
        let ended = std::mem::take(&mut self.ended).into_iter();
        let (taken, kept): (Vec<_>, Vec<_>) = ended.partition(|ended| gone(ended.watched.target.id));
        self.ended = kept;
        taken
    }

    /// Frees the index of a target that was taken out, when no kernel program uses it any more.
    pub(super) fn free_index(&mut self, ended: &Ended) {
        self.indices.give_back(ended.watched.known.index);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{discover::Process, signals::State, target::Target};

    /// Adds a target with a pid; returns its id.
    fn add(table: &mut TargetTable, pid: u32) -> u32 {
        let process = Process {
            pid,
            ..Process::read(std::process::id()).unwrap()
        };
        let id = table.new_id();
        let mut watched = Watched::new(Target::new(process, id, Arc::default(), MonoNs(0)), State::default());
        watched.known.index = table.next_index(1.0).unwrap();
        table.take_index();
        table.insert(watched);
        id
    }

    fn end(table: &mut TargetTable, id: u32, time: u64) {
        let watched = table.remove(id).unwrap();
        table.add_ended(watched, EndReason::Exited, MonoNs(time));
    }

    fn pids<'a>(targets: impl Iterator<Item = &'a Watched>) -> Vec<u32> {
        let mut pids: Vec<u32> = targets.map(|watched| watched.target.process.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn a_target_is_found_by_its_pid_until_it_ends_and_by_its_id_until_it_is_taken_out() {
        let mut table = TargetTable::default();
        assert!(table.is_empty());
        let (first, second) = (add(&mut table, 11), add(&mut table, 12));
        assert_eq!(pids(table.iter()), [11, 12]);
        assert_eq!((table.pid(first), table.pid(second)), (Some(11), Some(12)));
        end(&mut table, first, 0);
        assert!(table.by_pid(11).is_none() && table.active(first).is_none() && table.remove(first).is_none());
        assert_eq!(table.by_id(first).unwrap().target.process.pid, 11);
        assert_eq!((pids(table.iter()), pids(table.ended())), (vec![12], vec![11]));
        assert_eq!(pids(table.with_ended().map(|watched| &*watched)), [11, 12]);
        assert!(table.take_ended(|id| id == second).is_empty() && table.has_ended());
        assert_eq!(table.take_ended(|id| id == first).len(), 1);
        assert!(table.by_id(first).is_none() && !table.has_ended());
    }

    #[test]
    fn a_pid_that_is_used_again_has_another_id() {
        let mut table = TargetTable::default();
        let first = add(&mut table, 11);
        end(&mut table, first, 0);
        let second = add(&mut table, 11);
        assert_ne!(first, second);
        assert_eq!(table.by_pid(11).unwrap().target.id, second);
        assert_eq!(table.by_id(first).unwrap().target.id, first);
    }

    #[test]
    fn an_index_is_free_when_its_target_is_taken_out() {
        let mut table = TargetTable::default();
        let first = add(&mut table, 11);
        let index = table.by_pid(11).unwrap().known.index;
        end(&mut table, first, 0);
        add(&mut table, 12);
        assert_ne!(table.by_pid(12).unwrap().known.index, index);
        for ended in table.take_ended(|_| true) {
            table.free_index(&ended);
        }
        assert_eq!(table.next_index(1.0).unwrap(), index);
        assert!(table.next_index(0.0).is_err(), "the agent is at its own limits");
    }

    #[test]
    fn entries_of_a_target_that_ended_are_kept_for_a_moment() {
        let mut table = TargetTable::default();
        let (first, second) = (add(&mut table, 11), add(&mut table, 12));
        end(&mut table, first, 1000);
        let check = |now: u64, is_last: bool, expected: &[u32]| {
            let kept = table.kept_ids(MonoNs(now), is_last);
            assert_eq!(kept, expected.iter().copied().collect(), "{now} {is_last}");
        };
        check(1000, false, &[first, second]);
        check(999 + MIN_KEPT, false, &[first, second]);
        check(1000 + MIN_KEPT, false, &[second]);
        check(1000, true, &[second]);
    }

    #[test]
    fn a_target_that_could_not_be_attached_is_not_counted() {
        let mut table = TargetTable::default();
        let (first, second) = (add(&mut table, 11), add(&mut table, 12));
        end(&mut table, first, 0);
        let watched = table.remove(second).unwrap();
        table.add_ended(watched, EndReason::AttachFailed, MonoNs(0));
        assert_eq!((table.ended_count, table.ended().count()), (1, 2));
    }
}
