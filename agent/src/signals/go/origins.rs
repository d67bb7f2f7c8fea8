//! Where the time of goroutines went, by origin: the function that they were started with.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_common::{
    go::{
        latency::{OTHERS, PERIOD},
        sched::Spent,
    },
    histogram::{Bucket, Series},
};

use crate::{
    aggregate::{Histogram, store::Reading},
    model::{Attribute, Metric, Point},
    signals::{State, points::metric, process::quota::Quotas},
    target::Target,
    telemetry::{
        OVERFLOW,
        go::{
            GOROUTINE_FUNCTION, GOROUTINE_STATE, GOROUTINE_SYSTEM, GOROUTINE_WAIT_REASON,
            sched::{GOROUTINE_CAUSE, GOROUTINE_ENDED, GOROUTINE_LONG_RUNS, GOROUTINE_PREEMPTIONS, GOROUTINE_TIME},
        },
        process::quota::CGROUP_PATH,
        thread::syscall::GOROUTINE_SYSCALL_TIME,
    },
};

/// Origins whose time is shown apart.
const ORIGINS: usize = 64;

/// The origins that are shown apart: once in, an origin stays, so that all sums only grow.
#[derive(Debug, Default)]
pub struct Origins {
    shown: BTreeSet<u32>,
    /// Those that came when there was no more room.
    others: BTreeSet<u32>,
    /// Throttled time by origin, category, and the cgroup that throttled as it came in: (path, ns), and their sum.
    throttled: HashMap<(Option<u32>, u8), Throttled>,
}

#[derive(Debug, Default)]
struct Throttled {
    by: BTreeMap<Option<String>, u64>,
    sum: u64,
}

impl Throttled {
    /// Takes note of a sum that only grows: what is new is the present cgroup's.
    fn note(&mut self, sum: u64, path: Option<&str>) {
        let new = sum.saturating_sub(self.sum);
        if new > 0 {
            *self.by.entry(path.map(str::to_owned)).or_default() += new;
            self.sum = sum;
        }
    }
}

/// Chooses the origins that are shown apart: those on which most time went, as long as there is room.
pub fn note(target: &Target, state: &mut State, reading: &Reading) {
    let mut times: HashMap<u32, u64> = HashMap::new();
    for series in [Series::GoTime, Series::GoAssist, Series::GoSyscall] {
        for (origin, _, bucket) in reading.sums(target.id, series) {
            *times.entry(named(origin, target)).or_default() += bucket.sum;
        }
    }
    let samples = reading.split(target.id, Series::GoLatency);
    for (origin, histogram) in samples.filter(|(origin, _)| *origin != OTHERS) {
        *times.entry(named(origin, target)).or_default() += PERIOD * histogram.sum();
    }
    let Origins { shown, others, .. } = &mut state.origins;
    let mut new: Vec<(u32, u64)> = times
        .into_iter()
        .filter(|(origin, _)| !shown.contains(origin) && !others.contains(origin))
        .collect();
    new.sort_unstable_by_key(|(origin, time)| (std::cmp::Reverse(*time), *origin));
    for (origin, _) in new {
        if shown.len() < ORIGINS {
            shown.insert(origin);
        } else {
            others.insert(origin);
        }
    }
    let path = state.quotas.as_ref().and_then(Quotas::throttling);
    let throttled = by_origin(target, state, reading, Series::GoTime)
        .into_iter()
        .filter(|((_, category), _)| is_throttled(*category));
    let mut noted = std::mem::take(&mut state.origins.throttled);
    for (key, bucket) in throttled {
        noted.entry(key).or_default().note(bucket.sum, path);
    }
    state.origins.throttled = noted;
}

fn is_throttled(category: u8) -> bool {
    kind(u32::from(category)).is_some_and(|(_, cause)| cause == "throttled")
}

/// Sums by origin and category; what is not shown apart is one origin, None.
pub fn by_origin(
    target: &Target,
    state: &State,
    reading: &Reading,
    series: Series,
) -> HashMap<(Option<u32>, u8), Bucket> {
    let mut sums: HashMap<(Option<u32>, u8), Bucket> = HashMap::new();
    for (origin, category, bucket) in reading.sums(target.id, series) {
        let origin = named(origin, target);
        let origin = state.origins.shown.contains(&origin).then_some(origin);
        let sum = sums.entry((origin, category)).or_default();
        sum.count += bucket.count;
        sum.sum += bucket.sum;
    }
    sums
}

/// Distributions by origin; those that are not shown apart are one, None.
pub fn distributions(
    target: &Target,
    state: &State,
    reading: &Reading,
    series: Series,
) -> BTreeMap<Option<u32>, Histogram> {
    let mut all: BTreeMap<Option<u32>, Histogram> = BTreeMap::new();
    for (origin, histogram) in reading.split(target.id, series) {
        let origin = (origin != OTHERS).then(|| named(origin, target));
        let origin = origin.filter(|origin| state.origins.shown.contains(origin));
        all.entry(origin).or_default().merge(histogram);
    }
    all
}

/// What the time from runnable to running went into, largest first, as people read it; None when there was none.
pub fn turns(target: &Target, state: &State, reading: &Reading) -> Option<String> {
    let mut times: HashMap<&str, u64> = HashMap::new();
    for (_, category, bucket) in reading.sums(target.id, Series::GoTime) {
        if let Some(("runnable", cause)) = kind(u32::from(category)) {
            *times.entry(cause).or_default() += bucket.sum;
        }
    }
    let whole: u64 = times.values().sum();
    let mut times: Vec<_> = times.into_iter().filter(|(_, time)| *time > 0).collect();
    times.sort_unstable_by_key(|(cause, time)| (std::cmp::Reverse(*time), *cause));
    let text = times.into_iter().map(|(cause, time)| {
        let why = match cause {
            "no_processor" => "no P free",
            "idle_processor" => "an idle P had to be woken",
            "run_queue" => "the P's thread waited for a core",
            "throttled" => "the P's thread was throttled",
            _ => "not known which",
        };
        let by = state.quotas.as_ref().and_then(Quotas::throttling);
        let by = by.filter(|_| cause == "throttled").map(|path| format!(" by {path}"));
        format!(
            "{why}{} {:.1} %",
            by.unwrap_or_default(),
            100.0 * time as f64 / whole as f64
        )
    });
    (whole > 0).then(|| text.collect::<Vec<_>>().join(", "))
}

/// The time of each origin, and how it was cut up.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let mut sums: Vec<_> = by_origin(target, state, reading, Series::GoTime).into_iter().collect();
    sums.sort_unstable_by_key(|(key, _)| *key);
    let [mut times, mut long, mut preempted, mut ended]: [Vec<Point>; 4] = Default::default();
    for ((origin, category), bucket) in sums {
        let attributes = origin_attributes(origin, target);
        let point = |value, more: Vec<Attribute>| {
            let attributes = attributes.iter().cloned().chain(more);
            target.sum(value, reading.time, attributes.collect())
        };
        match u32::from(category) {
            category if category == Spent::Long as u32 => long.push(point(bucket.count, Vec::new())),
            category if category == Spent::Preempted as u32 => preempted.push(point(bucket.count, Vec::new())),
            category if category == Spent::Ended as u32 => ended.push(point(bucket.count, Vec::new())),
            of => match state.origins.throttled.get(&(origin, category)) {
                Some(throttled) => times.extend(throttled.by.iter().map(|(path, time)| {
                    let mut attributes = category_attributes(of, state);
                    attributes.extend(path.clone().map(|path| Attribute::new(CGROUP_PATH, path)));
                    point(*time, attributes)
                })),
                None => times.push(point(bucket.sum, category_attributes(of, state))),
            },
        }
    }
    [
        metric(&GOROUTINE_TIME, times),
        metric(&GOROUTINE_LONG_RUNS, long),
        metric(&GOROUTINE_PREEMPTIONS, preempted),
        metric(&GOROUTINE_ENDED, ended),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The time of each origin in system calls.
pub fn syscalls(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let mut sums: Vec<_> = by_origin(target, state, reading, Series::GoSyscall)
        .into_iter()
        .collect();
    sums.sort_unstable_by_key(|(key, _)| *key);
    let point = |((origin, _), bucket): ((Option<u32>, u8), Bucket)| {
        target.sum(bucket.sum, reading.time, origin_attributes(origin, target))
    };
    metric(&GOROUTINE_SYSCALL_TIME, sums.into_iter().map(point).collect())
}

/// The address that a low half of one is kept of, such as an origin's.
fn address(id: u32, target: &Target) -> u64 {
    if id == 0 {
        return 0;
    }
    // The executable is less than 4 GiB long: the upper half of an address is its begin's, or one more.
    let near = target.bias & !u64::from(u32::MAX) | u64::from(id);
    if near < target.bias { near + (1 << 32) } else { near }
}

/// The origin that one is a part of: several go statements may start one function, each by a wrapper of its own.
fn named(id: u32, target: &Target) -> u32 {
    target.go_start(address(id, target)) as u32
}

/// What a goroutine is called that was started with the function at `startpc`, everywhere: as the runtime does, or `unknown`.
pub fn started_with(startpc: u64, target: &Target) -> String {
    let frame = match target.go_start(startpc) {
        0 => None,
        start => target.go_frame(start),
    };
    frame.map_or_else(|| "unknown".to_owned(), |frame| frame.function)
}

/// What is said of a goroutine by the function that it was started with.
pub fn function_attributes(startpc: u64, target: &Target) -> [Attribute; 2] {
    let function = started_with(startpc, target);
    [
        Attribute::new(GOROUTINE_SYSTEM, is_system(&function)),
        Attribute::new(GOROUTINE_FUNCTION, function),
    ]
}

/// The function of an origin.
pub fn function(id: u32, target: &Target) -> String {
    started_with(address(id, target), target)
}

/// What a point says of its origin.
pub fn origin_attributes(id: Option<u32>, target: &Target) -> Vec<Attribute> {
    match id {
        Some(id) => function_attributes(address(id, target), target).into(),
        None => vec![Attribute::new(OVERFLOW, true)],
    }
}

/// State, and what it is due to.
fn category_attributes(category: u32, state: &State) -> Vec<Attribute> {
    let Some((state, cause)) = kind(category) else {
        return vec![
            Attribute::new(GOROUTINE_STATE, "waiting"),
            Attribute::new(GOROUTINE_WAIT_REASON, state.wait_reason(category)),
        ];
    };
    vec![
        Attribute::new(GOROUTINE_STATE, state),
        Attribute::new(GOROUTINE_CAUSE, cause),
    ]
}

/// The state and the cause that a category of [`Series::GoTime`] stands for; None when it is a wait reason.
fn kind(category: u32) -> Option<(&'static str, &'static str)> {
    const KINDS: [(Spent, &str, &str); 10] = [
        (Spent::Running, "running", "on_core"),
        (Spent::Blocked, "running", "asleep"),
        (Spent::RunningRunQueue, "running", "run_queue"),
        (Spent::RunningThrottled, "running", "throttled"),
        (Spent::RunningUnsplit, "running", "unsplit"),
        (Spent::NoProcessor, "runnable", "no_processor"),
        (Spent::RunQueue, "runnable", "run_queue"),
        (Spent::Throttled, "runnable", "throttled"),
        (Spent::IdleProcessor, "runnable", "idle_processor"),
        (Spent::RunnableUnsplit, "runnable", "unsplit"),
    ];
    let found = KINDS.into_iter().find(|(spent, ..)| *spent as u32 == category);
    found.map(|(_, state, cause)| (state, cause))
}

/// Whether a goroutine started with `function` is one of the runtime's own (go1.26, runtime/traceback.go,
/// isSystemGoroutine: all of package runtime but main and handleAsyncEvent; of the finalizer's, which is the user's while it
/// calls a finalizer, nothing more is known here).
pub fn is_system(function: &str) -> bool {
    function.starts_with("runtime.") && !["runtime.main", "runtime.handleAsyncEvent"].contains(&function)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{discover::Process, model::MonoNs};

    #[test]
    fn the_runtimes_own_goroutines_are_told_apart() {
        for (function, expected) in [
            ("runtime.gcBgMarkWorker", true),
            ("runtime.gcBgMarkStartWorkers.gowrap1", true),
            ("runtime.main", false),
            ("main.spin.func1", false),
            ("runtime/trace.Start.func1", false),
        ] {
            assert_eq!(is_system(function), expected, "{function}");
        }
    }

    #[test]
    fn turns_are_told_largest_first() {
        let process = Process::read(std::process::id()).unwrap();
        let target = Target::new(process, 1, Arc::default(), MonoNs(0));
        let mut reading = Reading::default();
        let state = State::default();
        assert_eq!(turns(&target, &state, &reading), None);
        let categories = [
            (Spent::NoProcessor, 5),
            (Spent::Throttled, 15),
            (Spent::Running, 1000),
            (Spent::RunQueue, 0),
        ];
        for (category, sum) in categories {
            let key = (1, Series::GoTime as u16, 7, category as u8);
            reading.sums.insert(key, Bucket { count: 1, sum });
        }
        let expected = "the P's thread was throttled 75.0 %, no P free 25.0 %";
        assert_eq!(turns(&target, &state, &reading).as_deref(), Some(expected));
    }

    #[test]
    fn an_origin_stays_where_it_was_put() {
        let process = Process::read(std::process::id()).unwrap();
        let target = Target::new(process, 1, Arc::default(), MonoNs(0));
        let mut state = State::default();
        let mut reading = Reading::default();
        let add = |reading: &mut Reading, origin: u32, sum| {
            let key = (1, Series::GoTime as u16, origin, Spent::Running as u8);
            reading.sums.insert(key, Bucket { count: 1, sum });
        };
        let rest = |state: &State, reading: &Reading| {
            by_origin(&target, state, reading, Series::GoTime)
                .get(&(None, Spent::Running as u8))
                .map_or(0, |bucket| bucket.sum)
        };
        for origin in 0..100 {
            add(&mut reading, origin, u64::from(origin));
        }
        note(&target, &mut state, &reading);
        // The 64 on which most time went are shown, the others are one.
        assert_eq!(rest(&state, &reading), (0..36).sum::<u64>());
        assert_eq!(by_origin(&target, &state, &reading, Series::GoTime).len(), 65);
        add(&mut reading, 0, 1_000_000);
        note(&target, &mut state, &reading);
        assert_eq!(rest(&state, &reading), (0..36).sum::<u64>() + 1_000_000);
    }

    #[test]
    fn throttled_time_is_the_cgroups_that_throttled_then() {
        let mut throttled = Throttled::default();
        for (sum, path) in [
            (5, None),
            (5, Some("/a")),
            (25, Some("/a")),
            (28, Some("/b")),
            (28, Some("/a")),
        ] {
            throttled.note(sum, path);
        }
        let by: Vec<_> = throttled
            .by
            .iter()
            .map(|(path, time)| (path.as_deref(), *time))
            .collect();
        assert_eq!(by, [(None, 5), (Some("/a"), 20), (Some("/b"), 3)]);
    }
}
