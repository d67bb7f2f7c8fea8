//! Goroutines alive, by the function they were started with and the go statement that did it: a leak is a line that grows. From
//! the target's memory: no probe, no cost to the target.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    model::{Attribute, Metric, MonoNs, Point, PointData},
    runtime::go::{Seen, State, Walk},
    signals::go::looks::{Alive, Looks},
    signals::go::origins::{function_attributes, is_system, started_with},
    signals::points::metric,
    signals::summary::Summary,
    signals::{self, MemoryRead, ReadWhen, Signal},
    target::Target,
    telemetry::{
        OVERFLOW,
        go::{
            GOROUTINE_CREATOR_FILE, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_CREATOR_LINE, GOROUTINE_STATE,
            GOROUTINE_WAIT_REASON,
            goroutines::{DEFS, GOROUTINE_ALIVE, GOROUTINE_FOUND, GOROUTINE_GONE, GOROUTINE_LEFT_OUT},
        },
    },
};

pub const NAME: &str = "go.goroutines";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    read: Some(MemoryRead {
        when: ReadWhen::Export,
        read: walk,
    }),
    summary: Some(|target, state, _| {
        let growing = fastest_growing(target, state);
        Summary::default().note_about(GROWING, 2, growing.map(|growing| format!("goroutines grow: {growing}")))
    }),
    ..Signal::new(NAME, &DEFS, |target, state, _| metrics(target, state))
};

/// What the summary's line is about: it is left out where more is said of it.
pub const GROWING: &str = "growing goroutines";
/// Origins that are shown apart; the others are one.
const ORIGINS: usize = 64;
/// Of the time between two walks, a walk may take one part in so many.
const SHARE: u32 = 200;
/// Longest look: at a hundred thousand goroutines, on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(5);
/// Walks of late of which the least growth counts: a burst of requests is no leak.
const LATE: usize = 3;

/// Where goroutines come from: the function they were started with, and the go statement. Run-time addresses.
type Origin = (u64, u64);
/// Number of an origin that is shown apart; None for all others.
type Shown = Option<usize>;

/// What walks saw of one target.
#[derive(Debug, Default)]
pub struct Goroutines {
    /// An origin gives way only to one that has twice as many: its counters end then.
    shown: Vec<Origin>,
    numbers: HashMap<Origin, usize>,
    /// The last walk's, by goid.
    alive: HashMap<u64, Shown>,
    /// By origin: found by a walk and not by the one before, and the other way round.
    found: BTreeMap<Shown, u64>,
    gone: BTreeMap<Shown, u64>,
    /// By origin, state and wait reason: the last walk's.
    counts: BTreeMap<(Shown, State, u32), u64>,
    left_out: u64,
    looks: Looks,
    /// By number, how many more there were at the last walks than at the first.
    growths: VecDeque<Vec<i64>>,
    /// When the last walk was, and the first.
    walked: Option<MonoNs>,
    first: Option<MonoNs>,
    /// No walk before this.
    next: Option<Instant>,
}

impl Goroutines {
    /// Takes note of a walk.
    pub fn note(&mut self, walk: &Walk, now: MonoNs) {
        self.admit(&walk.goroutines);
        self.counts.clear();
        let mut alive = HashMap::with_capacity(walk.goroutines.len());
        // What a walk did not look at is neither new nor gone.
        let whole = walk.left_out == 0 && self.left_out == 0;
        let is_first = self.walked.is_none();
        for seen in &walk.goroutines {
            let shown = self.numbers.get(&origin(seen)).copied();
            *self.counts.entry((shown, seen.state, seen.reason)).or_default() += 1;
            if self.alive.remove(&seen.goid).is_none() && !is_first && whole {
                *self.found.entry(shown).or_default() += 1;
            }
            alive.insert(seen.goid, shown);
        }
        if whole {
            for shown in std::mem::take(&mut self.alive).into_values() {
                *self.gone.entry(shown).or_default() += 1;
            }
        }
        self.alive = alive;
        self.left_out = walk.left_out;
        self.looks.note(self.counts.iter());
        self.walked = Some(now);
        self.first.get_or_insert(now);
        let of = |counts: &BTreeMap<Shown, u64>, number| counts.get(&Some(number)).copied().unwrap_or(0) as i64;
        let growth = (0..self.shown.len()).map(|number| of(&self.found, number) - of(&self.gone, number));
        self.growths.push_back(growth.collect());
        if self.growths.len() > LATE {
            self.growths.pop_front();
        }
    }

    /// Gives the most frequent origins that are not shown yet what room there is, and that of others with less than half as
    /// many.
    fn admit(&mut self, goroutines: &[Seen]) {
        let mut counts: HashMap<Origin, u64> = HashMap::new();
        for origin in goroutines.iter().map(origin) {
            *counts.entry(origin).or_default() += 1;
        }
        let count_of = |origin: &Origin| counts.get(origin).copied().unwrap_or(0);
        let mut least: Vec<usize> = (0..self.shown.len()).collect();
        least.sort_unstable_by_key(|number| Reverse(count_of(&self.shown[*number])));
        let mut new: Vec<(Origin, u64)> = counts.iter().map(|(origin, count)| (*origin, *count)).collect();
        new.retain(|(origin, _)| !self.numbers.contains_key(origin));
        new.sort_unstable_by_key(|(origin, count)| (Reverse(*count), *origin));
        for (origin, count) in new {
            if self.shown.len() < ORIGINS {
                self.numbers.insert(origin, self.shown.len());
                self.shown.push(origin);
                continue;
            }
            let Some(number) = least.pop() else { return };
            if count < 2 * count_of(&self.shown[number]).max(1) {
                return;
            }
            self.replace(number, origin);
        }
    }

    fn replace(&mut self, number: usize, origin: Origin) {
        self.numbers.remove(&self.shown[number]);
        self.numbers.insert(origin, number);
        self.shown[number] = origin;
        for counts in [&mut self.found, &mut self.gone] {
            counts.remove(&Some(number));
        }
        for shown in self.alive.values_mut().filter(|shown| **shown == Some(number)) {
            *shown = None;
        }
        self.looks.forget(number);
        self.growths.clear();
    }

    /// Walks so far, and the origins that are shown apart.
    pub fn looks(&self) -> (u64, Vec<Alive>) {
        let shown = self.shown.iter().enumerate();
        let origins = shown.map(|(number, origin)| self.looks.alive(number, *origin, self.now(number)));
        (self.looks.count, origins.collect())
    }

    /// What the goroutines of an origin did at the last walk.
    fn now(&self, number: usize) -> impl Iterator<Item = (&(Shown, State, u32), &u64)> {
        self.counts
            .range((Some(number), State::Runnable, 0)..=(Some(number), State::Leaked, u32::MAX))
    }

    /// Goroutines of each origin that is shown apart: alive, and how many more than there were when it was shown first, at
    /// the least of the last walks.
    fn growth(&self) -> impl Iterator<Item = (Origin, u64, i64)> {
        self.shown.iter().enumerate().map(|(number, origin)| {
            let alive = self.now(number).map(|(_, count)| count).sum();
            let growths = self
                .growths
                .iter()
                .map(|growths| growths.get(number).copied().unwrap_or(0));
            (*origin, alive, growths.min().unwrap_or(0))
        })
    }
}

fn origin(seen: &Seen) -> Origin {
    (seen.startpc, seen.gopc)
}

/// Looks at every goroutine, unless the last look took too long to be repeated already; whether it did.
fn walk(target: &Target, state: &mut signals::State, now: MonoNs) -> std::io::Result<bool> {
    let Some(go) = &state.go else { return Ok(false) };
    let begin = Instant::now();
    let early = state.goroutines.next.is_some_and(|next| begin < next);
    if early || state.is_never_on(NAME) {
        return Ok(false);
    }
    let walk = go.read(target.process.pid, LONGEST, |runtime| {
        runtime.is_started().then(|| runtime.walk()).transpose()
    });
    let walked = begin.elapsed();
    // Also of one that did not come: it is no cheaper.
    state.goroutines.next = Some(Instant::now() + walked * SHARE);
    let Some(mut walk) = walk? else { return Ok(true) };
    // Names are read once: what that takes is no part of the next look.
    name(&mut walk.goroutines, target);
    let begin = Instant::now();
    state.goroutines.note(&walk, now);
    let took = walked + begin.elapsed();
    state.goroutines.next = Some(Instant::now() + took * SHARE);
    Ok(true)
}

/// Makes one origin of what has one name: wrappers of a function, and what has none.
fn name(goroutines: &mut [Seen], target: &Target) {
    let mut known: HashMap<Origin, Origin> = HashMap::new();
    for seen in goroutines {
        let (startpc, gopc) = *known.entry(origin(seen)).or_insert_with(|| {
            let is_known = target.go_start(seen.gopc.saturating_sub(1)) != 0;
            (target.go_start(seen.startpc), if is_known { seen.gopc } else { 0 })
        });
        (seen.startpc, seen.gopc) = (startpc, gopc);
    }
}

/// The last walk as metrics.
pub fn metrics(target: &Target, state: &signals::State) -> Vec<Metric> {
    let goroutines = &state.goroutines;
    let (Some(time), Some(first)) = (goroutines.walked, goroutines.first) else {
        return Vec::new();
    };
    let alive = |(&(shown, status, reason), count): (&(Shown, State, u32), &u64)| {
        let mut attributes = attributes(target, state, shown);
        attributes.push(Attribute::new(GOROUTINE_STATE, status.name()));
        if status == State::Waiting {
            attributes.push(Attribute::new(GOROUTINE_WAIT_REASON, state.wait_reason(reason)));
        }
        target.gauge(*count as i64, time, attributes)
    };
    let sum = |(shown, count): (&Shown, &u64)| target.sum_from(first, *count, time, attributes(target, state, *shown));
    let left_out = vec![target.gauge(goroutines.left_out as i64, time, Vec::new())];
    [
        metric(&GOROUTINE_ALIVE, merged(goroutines.counts.iter().map(alive))),
        metric(&GOROUTINE_FOUND, merged(goroutines.found.iter().map(sum))),
        metric(&GOROUTINE_GONE, merged(goroutines.gone.iter().map(sum))),
        metric(&GOROUTINE_LEFT_OUT, left_out),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One point for each set of attributes: go statements in one line are one place.
fn merged(points: impl Iterator<Item = Point>) -> Vec<Point> {
    let mut merged: Vec<Point> = Vec::new();
    for point in points {
        let same = merged.iter_mut().find(|known| known.attributes == point.attributes);
        match (same.map(|known| &mut known.data), &point.data) {
            (Some(PointData::Gauge(sum)), PointData::Gauge(more))
            | (Some(PointData::Sum(sum)), PointData::Sum(more)) => {
                *sum += more;
            }
            _ => merged.push(point),
        }
    }
    merged
}

fn attributes(target: &Target, state: &signals::State, shown: Shown) -> Vec<Attribute> {
    let Some((startpc, gopc)) = shown.map(|number| state.goroutines.shown[number]) else {
        return vec![Attribute::new(OVERFLOW, true)];
    };
    let mut attributes: Vec<Attribute> = function_attributes(startpc, target).into();
    // gopc is the return address of the call: the statement is just before it.
    if let Some(frame) = target.go_frame(gopc.saturating_sub(1)) {
        attributes.push(Attribute::new(GOROUTINE_CREATOR_FUNCTION, frame.function));
        attributes.push(Attribute::new(GOROUTINE_CREATOR_FILE, frame.file));
        attributes.push(Attribute::new(GOROUTINE_CREATOR_LINE, i64::from(frame.line)));
    }
    attributes
}

/// The origin whose goroutines have become more by most since the first walk, as people read it; None when none has.
fn fastest_growing(target: &Target, state: &signals::State) -> Option<String> {
    /// Fewer more are a service at work.
    const FEW: i64 = 10;
    let goroutines = &state.goroutines;
    let (first, last) = (goroutines.first?, goroutines.walked?);
    let named = |startpc| started_with(startpc, target);
    let of_user = goroutines.growth().filter(|(_, _, more)| *more >= FEW);
    let of_user = of_user.map(|((startpc, gopc), alive, more)| (named(startpc), gopc, alive, more));
    let of_user = of_user.filter(|(function, ..)| !is_system(function));
    let (function, gopc, alive, more) = of_user.max_by_key(|(.., more)| *more)?;
    let place = target
        .go_frame(gopc.saturating_sub(1))
        .map_or_else(String::new, |frame| {
            let file = frame.file.rsplit('/').next().unwrap_or_default().to_owned();
            format!(", made by {} at {file}:{}", frame.function, frame.line)
        });
    let took = Duration::from_secs(last.0.saturating_sub(first.0) / 1_000_000_000);
    Some(format!(
        "{function} +{more} in {}, {alive} alive{place}",
        humantime::format_duration(took)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(goid: u64, origin: u64) -> Seen {
        Seen {
            goid,
            startpc: origin,
            gopc: origin + 1,
            state: State::Waiting,
            reason: 3,
        }
    }

    fn walk(goroutines: impl IntoIterator<Item = (u64, u64)>) -> Walk {
        Walk {
            goroutines: goroutines
                .into_iter()
                .map(|(goid, origin)| seen(goid, origin))
                .collect(),
            left_out: 0,
        }
    }

    #[test]
    fn a_leak_grows_and_a_service_at_work_does_not() {
        let mut goroutines = Goroutines::default();
        // Of origin 1 three more a walk; of origin 2 as many come as go.
        for step in 0..5u64 {
            let leaked = (0..=3 * step).map(|goid| (goid, 1));
            let busy = (0..4).map(|number| (1000 + 4 * step + number, 2));
            goroutines.note(&walk(leaked.chain(busy)), MonoNs(step));
        }
        let growth: Vec<_> = goroutines.growth().collect();
        // As it was at the third walk: since then it was never less.
        assert_eq!(growth, [((2, 3), 4, 0), ((1, 2), 13, 6)]);
        let of = |counts: &BTreeMap<Shown, u64>, number| counts.get(&Some(number)).copied();
        assert_eq!(
            (of(&goroutines.found, 0), of(&goroutines.gone, 0)),
            (Some(16), Some(16))
        );
        assert_eq!((of(&goroutines.found, 1), of(&goroutines.gone, 1)), (Some(12), None));
    }

    #[test]
    fn what_is_over_the_limit_is_one_origin() {
        let mut goroutines = Goroutines::default();
        let many = |round: u64| walk((0..200).map(|number| (number + 1000 * round, number)));
        goroutines.note(&many(0), MonoNs(0));
        goroutines.note(&many(1), MonoNs(1));
        assert_eq!(
            (goroutines.shown.len(), goroutines.counts.len()),
            (ORIGINS, ORIGINS + 1)
        );
        let others = 200 - ORIGINS as u64;
        assert_eq!(goroutines.counts[&(None, State::Waiting, 3)], others);
        assert_eq!((goroutines.found[&None], goroutines.gone[&None]), (others, others));
    }

    #[test]
    fn a_late_leak_takes_the_place_of_one_that_has_few() {
        let mut goroutines = Goroutines::default();
        let few = |from: u64| (0..ORIGINS as u64).map(move |number| (number + from, number + 10));
        goroutines.note(&walk(few(0)), MonoNs(0));
        for step in 1..5u64 {
            let leaked = (0..100 * step).map(|goid| (goid + 1_000_000, 1));
            goroutines.note(&walk(few(1000 * step).chain(leaked)), MonoNs(step));
        }
        assert_eq!(goroutines.shown.len(), ORIGINS);
        let late = goroutines.growth().find(|(origin, ..)| *origin == (1, 2));
        assert_eq!(late, Some(((1, 2), 400, 200)));
        // One that has few more stays out.
        assert!(
            goroutines
                .growth()
                .filter(|(origin, ..)| origin.0 >= 10)
                .all(|(_, alive, _)| alive == 1)
        );
    }

    #[test]
    fn what_was_not_looked_at_is_not_gone() {
        let mut goroutines = Goroutines::default();
        goroutines.note(&walk([(1, 1), (2, 1)]), MonoNs(0));
        let mut partial = walk([(1, 1)]);
        partial.left_out = 1;
        goroutines.note(&partial, MonoNs(1));
        assert!(goroutines.gone.is_empty());
        assert_eq!(goroutines.left_out, 1);
    }
}
