//! What hits cost: how many there were, from the kernel; what one costs, from calibration and from the kernel's own
//! statistics of programs (BPF_ENABLE_STATS, in force for one second now and then, since keeping them costs too).

use std::{
    os::fd::OwnedFd,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use agent_common::hits::{COLD, COLD_KIND, HitKind, Hits, LastHits, Plane, When};
use aya::{
    maps::{Map, MapData, MapError, PerCpuArray},
    sys::{Stats, enable_stats},
};
use log::{debug, info};

use super::{
    calibrate,
    cold::{self, Cold},
    counts::HitCounts,
    seen::{ENOUGH, Runs, Seen},
    traps::{self, Rounds},
};
use crate::{
    aggregate::{StoreError, store::open},
    attach::uprobe::Object,
};

/// Cost of a program before it was ever measured, ns.
const ASSUMED: f64 = 300.0;
/// Cost of a hook that does not count, where it was never measured, ns.
const ASSUMED_IDLE: f64 = 40.0;
/// Cost of a trap where it cannot be calibrated, ns.
const ASSUMED_TRAP: f64 = 1000.0;
/// Calling a program from a tracepoint, beyond what the statistics see, ns.
const CALL: f64 = 20.0;
/// How long the kernel keeps statistics, and how often: this while a window is open, else after twice the time.
const SAMPLE: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// The same while programs run whose cost was never measured.
const SAMPLE_SOON: Duration = Duration::from_secs(3);
/// How often it is checked whether the machine is still the same.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Cost of one hit by kind, ns.
#[derive(Clone, Debug)]
pub struct Costs {
    trap: f64,
    /// What the kernel's statistics add to each run of a program, while they are kept.
    kept: f64,
    programs: [f64; HitKind::COUNT],
}

impl Costs {
    /// One hit, ns.
    pub fn of(&self, probe: HitKind) -> f64 {
        let program = self.programs[probe as usize];
        match probe {
            _ if probe.is_cold() => program,
            _ if probe.is_uprobe() => program + self.kept + self.trap,
            _ => program + self.kept + CALL,
        }
    }

    /// A trap alone, ns.
    pub fn trap(&self) -> f64 {
        self.trap
    }

    /// What `hits` cost.
    pub fn split(&self, hits: &Hits) -> Split {
        let (mut split, mut cold) = (Split::default(), 0.0);
        for (probe, _) in HitKind::ALL {
            let hits = hits[probe as usize];
            if probe.is_cold() {
                cold += hits as f64 * self.of(probe);
                continue;
            }
            let part = match probe.when() {
                When::Always => &mut split.always,
                When::Idle => &mut split.idle,
                When::Windows => &mut split.windows[probe.plane() as usize],
            };
            part.hits += hits;
            part.cost += hits as f64 * self.of(probe);
        }
        // The extra cost of hits that are counted already. It is not known which were cold: the planes share it by their hits.
        let [sample, probes] = [Plane::Sample, Plane::Probes].map(|plane| split.windows[plane as usize].hits as f64);
        let of_sample = if sample > 0.0 { sample / (sample + probes) } else { 0.0 };
        split.windows[Plane::Sample as usize].cost += of_sample * cold;
        split.windows[Plane::Probes as usize].cost += (1.0 - of_sample) * cold;
        split
    }
}

/// Hits by the part of the budget that pays for them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Split {
    /// By plane.
    pub windows: [Part; Plane::COUNT],
    /// Hooks while it is attached for others: calls that do not count.
    pub idle: Part,
    /// What is always attached.
    pub always: Part,
}

/// A number of hits, and what they cost, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    pub hits: u64,
    pub cost: f64,
}

fn assumed() -> [f64; HitKind::COUNT] {
    let mut programs = [ASSUMED; HitKind::COUNT];
    programs[HitKind::HookIdle as usize] = ASSUMED_IDLE;
    take_over(&mut programs, &cold::ASSUMED);
    programs
}

fn take_over(programs: &mut [f64; HitKind::COUNT], cold: &Cold) {
    let first = COLD.into_iter().map(|(probe, _)| probe).zip(cold.first);
    for (probe, cost) in first.chain(COLD_KIND.into_iter().zip(cold.of_kind)) {
        programs[probe as usize] = cost;
    }
}

/// Reads hits and learns costs.
pub struct Meter {
    accounts: HitCounts,
    last_hits: Arc<PerCpuArray<MapData, LastHits>>,
    pub costs: Costs,
    /// What the kernel's statistics add to each run, ns.
    bias: f64,
    /// Cost of a run for a process that is no target, by kind, ns.
    foreign: [f64; HitKind::COUNT],
    sample: Option<Sample>,
    /// When the last sample of targets began.
    sampled: Option<Instant>,
    /// What samples showed of runs for targets, by kind.
    seen: [Seen; HitKind::COUNT],
    /// Hits of all targets at the last update.
    last: Hits,
    /// Receives what a hit costs after a pause, while that is measured.
    cold: Option<Receiver<Cold>>,
    /// Receives measurements of the trap.
    traps: Option<Receiver<f64>>,
    rounds: Rounds,
    /// The machine that was calibrated, and when it is checked again.
    machine: String,
    look: Instant,
}

/// Statistics under way.
struct Sample {
    /// The kernel keeps them for as long as this is open.
    _stats: OwnedFd,
    began: Instant,
    runs: [Runs; HitKind::COUNT],
    hits: Hits,
}

impl Meter {
    /// Takes over the maps of hits.
    pub fn new(take: &mut impl FnMut(&'static str) -> Option<Map>) -> Result<Self, StoreError> {
        Ok(Self {
            accounts: HitCounts::new(open(take, "ACCOUNTS")?),
            last_hits: Arc::new(open(take, "LAST_HITS")?),
            costs: Costs {
                trap: ASSUMED_TRAP,
                kept: 0.0,
                programs: assumed(),
            },
            bias: 0.0,
            foreign: [0.0; HitKind::COUNT],
            sample: None,
            sampled: None,
            seen: [Seen::default(); HitKind::COUNT],
            last: [0; HitKind::COUNT],
            cold: None,
            traps: None,
            rounds: Rounds::default(),
            machine: String::new(),
            look: Instant::now(),
        })
    }

    /// Measures a trap, and what programs cost for processes that are no targets.
    pub fn calibrate(&mut self, object: &mut Object) {
        self.calibrate_traps(object);
        self.begin(object, &[0; HitKind::COUNT]);
        for _ in 0..2 * ENOUGH {
            std::thread::sleep(Duration::from_micros(20));
        }
        self.end(object, &[0; HitKind::COUNT]);
        self.sampled = None;
    }

    fn calibrate_traps(&mut self, object: &mut Object) {
        self.machine = calibrate::machine();
        self.look = Instant::now() + LOOK_EVERY;
        match calibrate::trap(object) {
            Ok(Some(trap)) => {
                self.rounds = Rounds::default();
                self.costs.trap = self.rounds.add(trap);
            }
            Ok(None) => debug!(
                "cannot measure a trap, the machine is too busy: assuming {} ns",
                self.costs.trap
            ),
            Err(error) => debug!("cannot measure a trap, assuming {} ns: {error:#}", self.costs.trap),
        }
        // A kernel without statistics adds nothing.
        if let Ok(_stats) = enable_stats(Stats::RunTime) {
            match calibrate::bias(object) {
                Ok(bias) => self.bias = bias,
                Err(error) => debug!("cannot measure what the kernel's statistics add to a run: {error:#}"),
            }
        }
        match traps::time(object) {
            Ok(receiver) => self.traps = Some(receiver),
            Err(error) => debug!("the cost of a trap is not measured again: {error:#}"),
        }
        match cold::measure(object, self.costs.trap, Arc::clone(&self.last_hits)) {
            Ok(receiver) => self.cold = Some(receiver),
            Err(error) => debug!("cannot measure what a hit costs after a pause: {error:#}"),
        }
    }

    /// Hits of one target so far.
    pub fn hits(&self, index: u32) -> Result<Hits, MapError> {
        self.accounts.of(index)
    }

    /// The kernel's counts of hits.
    pub fn counts(&self) -> HitCounts {
        self.accounts.clone()
    }

    /// Sets a target's hits to 0, before the first.
    pub fn clear(&mut self, index: u32) -> Result<(), MapError> {
        self.accounts.clear(index)
    }

    /// Begins or ends a sample of the kernel's statistics when it is time; `hits` are all targets' so far, and `open` is whether
    /// some target's window is. Calibrates anew on a machine that is no longer the same.
    pub fn turn(&mut self, object: &mut Object, hits: &Hits, open: bool) {
        let now = Instant::now();
        if let Some(cold) = cold::result(&mut self.cold) {
            take_over(&mut self.costs.programs, &cold);
        }
        for trap in self.traps.iter().flat_map(Receiver::try_iter) {
            self.costs.trap = self.rounds.add(trap);
        }
        if now >= self.look {
            self.look = now + LOOK_EVERY;
            if self.sample.is_none() && calibrate::machine() != self.machine {
                info!("the online cores or their frequency policy changed: measuring the cost of a hit again");
                self.calibrate_traps(object);
            }
        }
        // The cost of rare hits need not be known.
        let unknown = |index: usize| self.is_unknown(index) && hits[index] > self.last[index].max(ENOUGH);
        let unknown = (0..HitKind::COUNT).any(unknown);
        self.last = *hits;
        let since = self.sampled.map(|sampled| now.duration_since(sampled));
        match &self.sample {
            None if is_due(since, open, unknown) => self.begin(object, hits),
            Some(sample) if now.duration_since(sample.began) >= SAMPLE => self.end(object, hits),
            _ => {}
        }
    }

    fn is_unknown(&self, index: usize) -> bool {
        let idle = index == HitKind::HookIdle as usize;
        !idle && !is_cold(index) && !self.seen[index].is_near()
    }

    fn begin(&mut self, object: &Object, hits: &Hits) {
        self.sampled = Some(Instant::now());
        match enable_stats(Stats::RunTime) {
            Ok(stats) => {
                self.costs.kept = self.bias;
                self.sample = Some(Sample {
                    _stats: stats,
                    began: Instant::now(),
                    runs: runs(object),
                    hits: *hits,
                });
            }
            Err(error) => debug!("the kernel keeps no statistics of programs, assuming {ASSUMED} ns: {error}"),
        }
    }

    fn end(&mut self, object: &Object, hits: &Hits) {
        let Some(sample) = self.sample.take() else { return };
        self.costs.kept = 0.0;
        let (mut idle_time, mut idle_count) = (0.0, 0);
        let programs = runs(object).into_iter().enumerate().zip(sample.runs);
        for ((index, now), before) in programs.filter(|((index, _), _)| !is_cold(*index)) {
            let count = now.count.saturating_sub(before.count);
            let time = (now.time - before.time - count as f64 * self.bias).max(0.0);
            // The hits of a target that ended since are missing.
            let own = hits[index].saturating_sub(sample.hits[index]);
            let others = count.saturating_sub(own) as f64 * self.foreign[index];
            let of_own = (time - others).max(0.0);
            if own > 0 {
                self.seen[index].add(of_own, own, &mut self.costs.programs[index]);
            }
            // Calls for other processes, and for targets while their hooks do not count.
            let idle = count.saturating_sub(own);
            if idle >= ENOUGH.max(10 * own) {
                let time = (time - own as f64 * self.costs.programs[index]).max(0.0);
                self.foreign[index] = time / idle as f64;
                idle_time += time;
                idle_count += idle;
            }
        }
        if idle_count > 0 {
            self.costs.programs[HitKind::HookIdle as usize] = idle_time / idle_count as f64;
        }
        debug!(
            "costs of a hit: trap {:.0} ns, programs {:.0?} ns; statistics add {:.0} ns, foreign {:.0?} ns",
            self.costs.trap, self.costs.programs, self.bias, self.foreign
        );
    }
}

/// Whether it is the index of a kind without programs.
fn is_cold(index: usize) -> bool {
    HitKind::ALL[index].0.is_cold()
}

/// Whether to begin a sample, `since` the last one began.
fn is_due(since: Option<Duration>, open: bool, unknown: bool) -> bool {
    let after = match (unknown, open) {
        (true, _) => SAMPLE_SOON,
        (_, true) => SAMPLE_EVERY,
        _ => 2 * SAMPLE_EVERY,
    };
    since.map_or(open || unknown, |since| since >= after)
}

fn runs(object: &Object) -> [Runs; HitKind::COUNT] {
    let mut runs = [Runs::default(); HitKind::COUNT];
    for (probe, programs) in HitKind::ALL {
        // Alternatives that are not used are not loaded, and have no statistics.
        for of in programs.iter().filter_map(|name| object.runs(name)) {
            runs[probe as usize].time += of.time as f64;
            runs[probe as usize].count += of.count;
        }
    }
    runs
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
