//! Where the wall time of goroutines goes: by the function they were started with, state and wait reason. From looks at a random part of
//! them at random times, in the target's memory: no probe, no cost to the target, at any load.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock,
    deadline::Late,
    looks::{Look, Looking, Looks, cpu_time},
    model::{Attribute, Metric, MonoNs, Point, PointData},
    runtime::go::{Category, GoRuntime, LookSize, State, WallSums, WallTime},
    signals::{
        self, MemoryRead, ReadWhen, Signal,
        go::origins::{function_attributes, is_system, started_with},
        points::metric,
        summary::Summary,
    },
    target::Target,
    telemetry::{
        OVERFLOW,
        go::{
            GOROUTINE_STATE, GOROUTINE_WAIT_REASON,
            wait::{DEFS, GOROUTINE_WALL_LOOKS, GOROUTINE_WALL_TIME, GOROUTINE_WALL_VARIANCE, LOOK_LATE},
        },
    },
};

pub const NAME: &str = "go.wait";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    start: Some(|target, state, _, _| start(target, state)),
    read: Some(MemoryRead {
        when: ReadWhen::Tick,
        read,
    }),
    summary: Some(|target, state, _| Summary::default().note(1, largest(target, state))),
    ..Signal::new(NAME, &DEFS, |target, state, _| metrics(target, state))
};

/// Origins, and origins with a state and a wait reason, whose time is shown apart; the others are one.
const ORIGINS: usize = 64;
const SERIES: usize = 512;
/// Shares in the summary.
const SHOWN: usize = 3;

/// Start function, state and wait reason; None for all of those that are not shown apart.
type Key = Option<(u64, State, u32)>;

/// The wall time of one target's goroutines.
#[derive(Default)]
pub struct Wall {
    looker: Option<Arc<Looker>>,
    /// Looks are made as long as this is here.
    looking: Option<Looking>,
    /// Once shown apart, always: all sums only grow.
    sums: BTreeMap<Key, WallTime>,
    origins: BTreeSet<u64>,
    looks: Counts,
    /// The first and the last look.
    first: Option<MonoNs>,
    last: MonoNs,
}

/// Looks at one target.
struct Looker {
    runtime: Arc<GoRuntime>,
    /// Held as long as a look takes.
    look: Mutex<OneLook>,
    /// Held for a moment only.
    found: Mutex<Found>,
}

#[derive(Default)]
struct OneLook {
    random: fastrand::Rng,
    size: LookSize,
    last: Option<MonoNs>,
}

/// Numbers of looks.
#[derive(Clone, Copy, Default)]
struct Counts {
    prompt: u64,
    /// Not with real-time priority, or longer than it lasts.
    late: u64,
}

impl Counts {
    fn add(&mut self, is_prompt: bool) {
        *(if is_prompt { &mut self.prompt } else { &mut self.late }) += 1;
    }
}

#[derive(Default)]
struct Found {
    sums: WallSums,
    /// Since this was last taken.
    looks: Counts,
    first: Option<MonoNs>,
    last: MonoNs,
    error: Option<io::Error>,
}

impl Looker {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_look(&self, most: Duration) -> io::Result<()> {
        if !self.runtime.is_started() {
            return Ok(());
        }
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let OneLook { random, size, last } = &mut *look;
        let before = cpu_time();
        let now = clock::now();
        let (seen, looked) = self.runtime.some(size.entries(), random)?;
        if looked.looked_at == looked.unread {
            return Ok(());
        }
        let span = last.map_or(0, |last| now.0.saturating_sub(last.0));
        *last = Some(now);
        let weight = looked.entries as f64 / (looked.looked_at - looked.unread) as f64;
        let mut found = self.found();
        found.sums.note(&seen, weight, span as f64);
        found.looks.add(looked.is_prompt);
        found.first.get_or_insert(now);
        found.last = now;
        drop(found);
        size.note(&looked, seen.len(), cpu_time().saturating_sub(before), most);
        Ok(())
    }
}

impl Look for Looker {
    fn look(&self, most: Duration) {
        let outcome = self.try_look(most);
        self.found().error = outcome.err();
    }

    fn late(&self, late: Late) {
        self.found().error = Some(late.into());
    }
}

/// Has the goroutines looked at from now on, unless that is left out.
fn start(target: &Target, state: &mut signals::State) {
    let (Some(go), Some(looks)) = (&state.go, &state.looks) else {
        return;
    };
    if state.is_never_on(NAME) {
        return;
    }
    state.wall = Wall::begin(go.share(), target.process.pid, looks);
}

impl Wall {
    fn begin(runtime: Arc<GoRuntime>, pid: u32, looks: &Looks) -> Self {
        let looker = Arc::new(Looker {
            runtime,
            look: Mutex::default(),
            found: Mutex::default(),
        });
        Self {
            looking: looks.begin(pid, looker.clone()),
            looker: Some(looker),
            ..Self::default()
        }
    }

    /// Takes note of what looks found. An origin is what the runtime names its goroutines by: several wrappers may be one.
    fn note(&mut self, found: HashMap<Category, WallTime>, origin: impl Fn(u64) -> u64) {
        let mut found: Vec<(Category, WallTime)> = found.into_iter().collect();
        // Where there is no more room, it is for those with the most time.
        found.sort_unstable_by(|(one, time), (other, than)| than.time.total_cmp(&time.time).then(one.cmp(other)));
        for (category, more) in found {
            let origin = origin(category.startpc);
            let mut key = Some((origin, category.state, category.reason));
            let is_shown = self.origins.contains(&origin) || self.origins.len() < ORIGINS;
            if !self.sums.contains_key(&key) && (!is_shown || self.sums.len() >= SERIES) {
                key = None;
            } else {
                self.origins.insert(origin);
            }
            let sum = self.sums.entry(key).or_default();
            sum.time += more.time;
            sum.variance += more.variance;
        }
    }
}

/// Takes over what looks found in the last second.
fn read(target: &Target, state: &mut signals::State, _: MonoNs) -> io::Result<bool> {
    let wall = &mut state.wall;
    let Some(looker) = &wall.looker else { return Ok(false) };
    if wall.looking.is_none() {
        return Err(io::Error::other("there is no thread for looks"));
    }
    let (sums, looks, first, last, error) = {
        let mut found = looker.found();
        let sums = found.sums.take();
        (
            sums,
            std::mem::take(&mut found.looks),
            found.first,
            found.last,
            found.error.take(),
        )
    };
    (wall.first, wall.last) = (first, last);
    wall.looks.prompt += looks.prompt;
    wall.looks.late += looks.late;
    wall.note(sums, |startpc| target.go_start(startpc));
    match error {
        Some(error) => Err(error),
        None => Ok(looks.prompt + looks.late > 0),
    }
}

/// What looks found so far as metrics.
pub fn metrics(target: &Target, state: &signals::State) -> Vec<Metric> {
    let wall = &state.wall;
    let Some(first) = wall.first else { return Vec::new() };
    let point = |key: &Key, data| Point {
        data,
        ..target.sum_from(first, 0, wall.last, attributes(target, state, key))
    };
    let mut times = Vec::new();
    let mut variances = Vec::new();
    for (key, sum) in &wall.sums {
        times.push(point(key, PointData::Time(sum.time as u64)));
        variances.push(point(key, PointData::RealSum(sum.variance / 1e18)));
    }
    let looks = [(wall.looks.prompt, false), (wall.looks.late, true)].map(|(count, is_late)| {
        let attributes = vec![Attribute::new(LOOK_LATE, is_late)];
        target.sum_from(first, count, wall.last, attributes)
    });
    [
        metric(&GOROUTINE_WALL_TIME, times),
        metric(&GOROUTINE_WALL_VARIANCE, variances),
        metric(&GOROUTINE_WALL_LOOKS, looks.into()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn attributes(target: &Target, state: &signals::State, key: &Key) -> Vec<Attribute> {
    let Some((origin, status, reason)) = *key else {
        return vec![Attribute::new(OVERFLOW, true)];
    };
    let mut attributes: Vec<Attribute> = function_attributes(origin, target).into();
    attributes.push(Attribute::new(GOROUTINE_STATE, status.name()));
    if status == State::Waiting {
        attributes.push(Attribute::new(GOROUTINE_WAIT_REASON, state.wait_reason(reason)));
    }
    attributes
}

/// The largest shares of the wall time of the user's goroutines, with their standard error, as people read them.
fn largest(target: &Target, state: &signals::State) -> Option<String> {
    let named = state.wall.sums.iter().map(|(key, sum)| {
        let function = key.map(|(origin, ..)| started_with(origin, target));
        (key, function, sum)
    });
    let mut of_user: Vec<_> = named
        .filter(|(_, function, _)| !function.as_deref().is_some_and(is_system))
        .collect();
    let whole: f64 = of_user.iter().map(|(.., sum)| sum.time).sum();
    of_user.sort_by_key(|(.., sum)| Reverse(sum.time as u64));
    let shares = of_user.into_iter().filter_map(|(key, function, sum)| {
        let ((_, status, reason), function) = ((*key)?, function?);
        let does = match status {
            State::Waiting => state.wait_reason(reason),
            status => status.name().to_owned(),
        };
        Some(format!(
            "{function} [{does}] {:.1} ± {:.1} %",
            100.0 * sum.time / whole,
            100.0 * sum.variance.sqrt() / whole
        ))
    });
    let shares: Vec<String> = shares.take(SHOWN).collect();
    (whole > 0.0).then(|| format!("wall time of goroutines: {}", shares.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(all: impl IntoIterator<Item = (u64, State, f64)>) -> HashMap<Category, WallTime> {
        let category = |startpc, state| Category {
            startpc,
            state,
            reason: 0,
        };
        let of = |(startpc, state, time)| (category(startpc, state), WallTime { time, variance: 4.0 });
        all.into_iter().map(of).collect()
    }

    #[test]
    fn sums_only_grow_and_what_is_over_the_limit_is_one() {
        let mut wall = Wall::default();
        wall.note(
            found((0..100).map(|origin| (origin, State::Running, origin as f64))),
            |origin| origin,
        );
        // The 64 with the most time are shown.
        assert_eq!(wall.sums.len(), ORIGINS + 1);
        assert_eq!(wall.sums[&None].time, (0..36).sum::<u64>() as f64);
        assert_eq!(wall.sums[&None].variance, 36.0 * 4.0);
        wall.note(found([(99, State::Running, 1.0), (0, State::Running, 1e9)]), |origin| {
            origin
        });
        let of = |wall: &Wall, origin| wall.sums[&Some((origin, State::Running, 0))].time;
        assert_eq!(of(&wall, 99), 100.0);
        assert_eq!(wall.sums[&None].time, (0..36).sum::<u64>() as f64 + 1e9);
        // Another state of one that is shown is shown.
        wall.note(found([(99, State::Runnable, 5.0)]), |origin| origin);
        assert_eq!(wall.sums[&Some((99, State::Runnable, 0))].time, 5.0);
    }

    #[test]
    fn wrappers_of_a_function_are_one_origin() {
        let mut wall = Wall::default();
        wall.note(
            found([(0x10, State::Waiting, 1.0), (0x11, State::Waiting, 2.0)]),
            |startpc| startpc & !1,
        );
        assert_eq!(wall.sums.len(), 1);
        assert_eq!(wall.sums[&Some((0x10, State::Waiting, 0))].time, 3.0);
    }
}
