//! Stage correlate: events of a target → its spans, within a limit. What leaves next is held here.

use std::collections::HashMap;

use agent_common::go::gc::Cycle;

use crate::{
    intake::Event,
    model::Span,
    signals::{self, State},
    target::Target,
};

/// Which part of a target's spans may be those of GC cycles: a service that collects its garbage some hundred times a second would
/// leave no room for what its requests wait for, and nobody looks at that many.
const CYCLES: f64 = 0.1;

/// Spans of all targets together that may wait, or one target's limit where that is more: some 16 MB.
const MOST: usize = 16 << 10;

/// Spans that wait to leave, by target.
pub struct SpanBuffer {
    waiting: HashMap<u32, Vec<Span>>,
    /// How many they are.
    all: usize,
    /// Which GC cycles are traced, by target.
    cycles: HashMap<u32, Pace>,
    /// Most that a target may have between two calls of [`Self::take`], which are a second apart.
    limit: usize,
    /// Spans made so far.
    pub made: u64,
    /// Events that were left out for the limit.
    pub over_limit: u64,
}

impl SpanBuffer {
    /// An empty one.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            all: 0,
            cycles: HashMap::new(),
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
    pub fn event(&mut self, event: &Event, target: &Target, state: &mut State) {
        let target_id = event.header().target_id;
        let waiting = self.waiting.entry(target_id).or_default();
        let fits_all = self.all < MOST.max(self.limit);
        let (mut fits, mut pace) = (waiting.len() < self.limit && fits_all, None);
        if let Event::GcCycle(cycle) = event {
            let of_cycles = pace.insert(self.cycles.entry(target_id).or_default());
            fits &= of_cycles.fits(cycle, self.limit as f64 * CYCLES);
            if !fits {
                state.cycles.leave_out(cycle.number);
            }
        }
        // A part of a GC cycle is kept for that, and becomes no spans by itself.
        if !fits && !signals::is_part(event) {
            self.over_limit += 1;
            return;
        }
        let before = waiting.len();
        signals::add_spans(event, target, state, waiting);
        let made = waiting.len() - before;
        self.made += made as u64;
        self.all += made;
        if let Some(pace) = pace {
            pace.room -= made as f64;
        }
    }

    /// What waits of one target, which ended.
    pub fn take_of(&mut self, target_id: u32) -> Vec<Span> {
        self.cycles.remove(&target_id);
        let spans = self.waiting.remove(&target_id).unwrap_or_default();
        self.all -= spans.len();
        spans
    }

    /// What waits of each.
    pub fn take(&mut self) -> impl Iterator<Item = (u32, Vec<Span>)> {
        for pace in self.cycles.values_mut() {
            pace.longest = -1;
        }
        self.all = 0;
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// Spans that wait on, for [`Self::take_of`].
    pub fn put_back(&mut self, target_id: u32, spans: Vec<Span>) {
        self.all += spans.len();
        self.waiting.entry(target_id).or_default().extend(spans);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.all
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which GC cycles of a target become traces: so many spans a second, evenly; besides, each whose pauses are longer than those of
/// all before it in its second: of n cycles, that is about ln n.
#[derive(Debug)]
struct Pace {
    /// Spans that it may have now; a second's before the first cycle.
    room: f64,
    /// Up to when that counts, ns.
    until: u64,
    /// Longest pauses since the last spans left, ns.
    longest: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            room: f64::INFINITY,
            until: 0,
            longest: -1,
        }
    }
}

impl Pace {
    /// Whether a cycle is to be traced when there may be `rate` spans of cycles a second.
    fn fits(&mut self, cycle: &Cycle, rate: f64) -> bool {
        let seconds = cycle.header.time.saturating_sub(self.until) as f64 / 1e9;
        self.until = cycle.header.time.max(self.until);
        self.room = (self.room + rate * seconds).min(rate);
        let record = cycle.pause > self.longest;
        self.longest = self.longest.max(cycle.pause);
        self.room > 0.0 || record
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_common::event::{Header, Kind};

    use super::*;
    use crate::{discover::Process, model::MonoNs};

    const SECOND: u64 = 1_000_000_000;

    fn cycle(number: u64, time: u64, pause: i64) -> Event {
        Event::GcCycle(Cycle {
            header: Header {
                kind: Kind::GcCycle as u32,
                target_id: 1,
                time,
                ..Header::default()
            },
            number,
            pause,
            ..Cycle::default()
        })
    }

    /// Cycles of `seconds` at so many a second, with spans that leave once a second; numbers of those that were traced.
    fn traced(seconds: u64, rate: u64, limit: usize, pause: fn(u64) -> i64) -> (Vec<u64>, State, SpanBuffer) {
        let mut state = State::default();
        let target = Target::new(Process::read(std::process::id()).unwrap(), 1, Arc::default(), MonoNs(0));
        let mut span_buffer = SpanBuffer::new(limit);
        let mut numbers = Vec::new();
        for second in 0..seconds {
            for at in 0..rate {
                let (number, before) = (second * rate + at + 1, span_buffer.len());
                let time = 100 * SECOND + second * SECOND + at * SECOND / rate;
                span_buffer.event(&cycle(number, time, pause(number)), &target, &mut state);
                if span_buffer.len() > before {
                    numbers.push(number);
                }
            }
            for (_, spans) in span_buffer.take() {
                assert!(spans.len() <= limit);
            }
        }
        (numbers, state, span_buffer)
    }

    #[test]
    fn spans_of_all_targets_together_are_bounded() {
        let mut span_buffer = SpanBuffer::new(1000);
        let mut events = 0;
        for target_id in 1..=1000 {
            let mut state = State::default();
            let target = Target::new(
                Process::read(std::process::id()).unwrap(),
                target_id,
                Arc::default(),
                MonoNs(0),
            );
            for number in 0..30 {
                let Event::GcCycle(mut of_target) = cycle(number, SECOND, 1) else {
                    unreachable!()
                };
                of_target.header.target_id = target_id;
                span_buffer.event(&Event::GcCycle(of_target), &target, &mut state);
                events += 1;
            }
        }
        assert!((MOST..MOST + 100).contains(&span_buffer.len()), "{}", span_buffer.len());
        assert!(span_buffer.over_limit > 0 && span_buffer.over_limit < events);
        let taken = span_buffer.take_of(1).len();
        span_buffer.put_back(1, Vec::new());
        assert!(taken > 0 && span_buffer.len() < MOST + 100 - taken);
        let rest: usize = span_buffer.take().map(|(_, spans)| spans.len()).sum();
        assert!(rest > 0 && span_buffer.is_empty());
    }

    #[test]
    fn rare_cycles_are_all_traced() {
        let (numbers, state, span_buffer) = traced(5, 20, 1000, |_| 20_000);
        assert_eq!(numbers.len(), 100);
        assert_eq!(
            (state.cycles.exported, state.cycles.missed, span_buffer.over_limit),
            (100, 0, 0)
        );
    }

    #[test]
    fn of_many_cycles_some_are_traced_evenly_and_none_is_missed() {
        let (numbers, state, span_buffer) = traced(10, 400, 1000, |_| 20_000);
        // Four spans each: 25 a second, what is saved up for the first, and the first of each second's, which is its longest.
        assert!((250..300).contains(&numbers.len()), "{numbers:?}");
        let late = numbers.iter().filter(|number| **number > 2000).count();
        assert!((120..150).contains(&late), "{numbers:?}");
        let apart = numbers.windows(2).skip(60).map(|pair| pair[1] - pair[0]).max();
        assert!(apart < Some(40), "{numbers:?}");
        assert_eq!(state.cycles.exported, numbers.len() as u64);
        assert_eq!(state.cycles.missed, 0);
        assert_eq!(span_buffer.over_limit, 4000 - numbers.len() as u64);
    }

    #[test]
    fn the_longest_pauses_are_always_traced() {
        let pause = |number: u64| if number.is_multiple_of(997) { 30_000_000 } else { 20_000 };
        let (numbers, ..) = traced(10, 400, 1000, pause);
        assert_eq!(
            (997..4000).step_by(997).filter(|long| numbers.contains(long)).count(),
            4
        );
    }

    #[test]
    fn a_limit_of_none_traces_none() {
        let (numbers, state, span_buffer) = traced(2, 50, 0, |_| 20_000);
        assert_eq!(
            (numbers.len(), state.cycles.exported, span_buffer.over_limit),
            (0, 0, 100)
        );
    }
}
