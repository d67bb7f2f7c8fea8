//! Stage correlate: events of a target → its spans, within a limit. What leaves next is held here.

use std::collections::HashMap;

use crate::{intake::Event, model::Span, signals, target::Target};

/// Spans that wait to leave, by target.
pub struct Collector {
    waiting: HashMap<u32, Vec<Span>>,
    /// Most that a target may have between two calls of [`Self::take`].
    limit: usize,
    /// Spans made so far.
    pub made: u64,
    /// Events that were left out for the limit.
    pub over_limit: u64,
}

impl Collector {
    /// An empty one.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            limit,
            made: 0,
            over_limit: 0,
        }
    }

    /// Sets the limit anew.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Makes spans of an event, or counts that there was no more room.
    pub fn event(&mut self, event: &Event, target: &mut Target) {
        let waiting = self.waiting.entry(event.header().slot).or_default();
        // A part of a GC cycle is kept for that, and becomes no spans by itself.
        if waiting.len() >= self.limit && !signals::is_part(event) {
            self.over_limit += 1;
            return;
        }
        let before = waiting.len();
        signals::spans(event, target, waiting);
        self.made += (waiting.len() - before) as u64;
    }

    /// What waits of one target.
    pub fn take_of(&mut self, slot: u32) -> Vec<Span> {
        self.waiting.remove(&slot).unwrap_or_default()
    }

    /// What waits of each.
    pub fn take(&mut self) -> impl Iterator<Item = (u32, Vec<Span>)> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
