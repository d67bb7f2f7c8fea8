//! What is known of a Go runtime at a reading.

use std::collections::BTreeMap;

use agent_common::{
    go::sched::{REASONS, Spent},
    histogram::Series,
};

use crate::{
    aggregate::store::Reading,
    model::MonoNs,
    runtime::go::{CPU_CLASSES, Limiter, State as Status, Threads},
    signals::{
        State,
        go::{
            looks::{Alive, Doing, is_mutex},
            origins::{by_origin, function, is_system, started_with},
            stops::Late,
        },
    },
    target::Target,
};

/// All figures are cumulative unless they say otherwise.
#[derive(Clone, Debug, Default)]
pub struct GoFacts {
    /// When the runtime's memory was read.
    pub time: MonoNs,
    /// Of now: GOMAXPROCS, GOGC and GOMEMLIMIT, the goal of the heap, and whether GOMEMLIMIT sets it; bytes.
    pub gomaxprocs: u64,
    pub gogc: Option<u64>,
    pub memory_limit: Option<u64>,
    pub heap_goal: Option<u64>,
    pub goal_by_limit: Option<bool>,
    /// Bytes.
    pub allocated: u64,
    pub cycles: u64,
    pub cycles_forced: u64,
    pub limiter: Option<Limiter>,
    /// In the order of [`CPU_CLASSES`].
    pub cpu: Option<[u64; CPU_CLASSES.len()]>,
    pub threads: Option<Threads>,
    pub c_calls: Option<u64>,
    /// Walks over all goroutines.
    pub looks: u64,
    /// Goroutines by origin, but for the runtime's own.
    pub origins: Vec<Origin>,
    /// Time from runnable to running while no P was idle, ns.
    pub no_processor: u64,
    /// Waits for locks by start function.
    pub mutexes: BTreeMap<String, Waited>,
    /// Whether the version has names for waits for locks.
    pub names_mutexes: bool,
    /// Time of assists by start function, ns.
    pub assists: BTreeMap<String, u64>,
    /// Stops of the world by the place of the goroutine that was late.
    pub late: BTreeMap<String, Late>,
    /// Forced cycles by the place of the call.
    pub forced: BTreeMap<String, u64>,
}

/// Goroutines that were started with one function at one go statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    pub function: String,
    /// The go statement: "main.serve at main.go:12"; "" where it is not known.
    pub place: String,
    /// Now.
    pub alive: u64,
    /// What most of them do now.
    pub most: String,
    /// By [`Doing`]: sums over all walks.
    pub doing: [u64; Doing::COUNT],
}

/// Time and number of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// ns.
    pub time: u64,
    pub count: u64,
}

impl Origin {
    /// Whether it is the same at another reading.
    pub fn is_same(&self, other: &Self) -> bool {
        self.function == other.function && self.place == other.place
    }
}

impl GoFacts {
    /// None where the runtime's memory was not read.
    pub fn gather(target: &Target, state: &State, reading: &Reading) -> Option<Self> {
        let (time, snapshot) = state.go.as_ref()?.latest.as_ref()?;
        let (looks, alive) = state.goroutines.looks();
        let mut mutexes: BTreeMap<String, Waited> = BTreeMap::new();
        let mut no_processor = 0;
        for ((origin, category), bucket) in by_origin(target, state, reading, Series::GoTime) {
            let category = u32::from(category);
            if category == Spent::NoProcessor as u32 {
                no_processor += bucket.sum;
            } else if category < REASONS && is_mutex(&state.wait_reason(category)) {
                let waited = mutexes.entry(named(origin, target)).or_default();
                waited.time += bucket.sum;
                waited.count += bucket.count;
            }
        }
        let mut assists: BTreeMap<String, u64> = BTreeMap::new();
        for ((origin, _), bucket) in by_origin(target, state, reading, Series::GoAssist) {
            *assists.entry(named(origin, target)).or_default() += bucket.sum;
        }
        Some(Self {
            time: *time,
            gomaxprocs: snapshot.gomaxprocs,
            gogc: snapshot.gogc,
            memory_limit: snapshot.memory_limit,
            heap_goal: snapshot.heap_goal,
            goal_by_limit: snapshot.goal_by_limit,
            allocated: snapshot.allocated_bytes,
            cycles: snapshot.gc_cycles,
            cycles_forced: snapshot.gc_cycles_forced,
            limiter: snapshot.between.limiter,
            cpu: snapshot.cpu,
            threads: snapshot.threads,
            c_calls: snapshot.c_calls,
            looks,
            origins: alive
                .into_iter()
                .filter_map(|alive| origin(&alive, target, state))
                .collect(),
            no_processor,
            mutexes,
            names_mutexes: state.wait_reasons.iter().any(|reason| is_mutex(reason)),
            assists,
            late: state.stops.late().clone(),
            forced: state.stops.forced().clone(),
        })
    }

    /// Goroutines of all origins that did this, summed over all walks.
    pub fn doing(&self, what: Doing) -> u64 {
        self.origins.iter().map(|origin| origin.doing[what as usize]).sum()
    }
}

fn named(origin: Option<u32>, target: &Target) -> String {
    origin.map_or_else(|| "others".to_owned(), |origin| function(origin, target))
}

/// None for the runtime's own.
fn origin(alive: &Alive, target: &Target, state: &State) -> Option<Origin> {
    let function = started_with(alive.startpc, target);
    if is_system(&function) {
        return None;
    }
    // gopc is the return address of the call: the statement is just before it.
    let frame = target.go_frame(alive.gopc.saturating_sub(1));
    let place = frame.map_or_else(String::new, |frame| {
        let file = frame.file.rsplit('/').next().unwrap_or_default();
        format!("{} at {file}:{}", frame.function, frame.line)
    });
    let mut doing = [0; Doing::COUNT];
    for (status, reason, sum) in &alive.looks {
        doing[Doing::of(*status, &reason_of(*status, *reason, state)) as usize] += sum;
    }
    let most = alive.most.map(|(status, reason)| match status {
        Status::Waiting => state.wait_reason(reason),
        status => status.name().to_owned(),
    });
    Some(Origin {
        function,
        place,
        alive: alive.alive,
        most: most.unwrap_or_default(),
        doing,
    })
}

fn reason_of(status: Status, reason: u32, state: &State) -> String {
    match status {
        Status::Waiting => state.wait_reason(reason),
        _ => String::new(),
    }
}
