//! What a hit costs in addition after a pause, when its data is no longer in the CPU's caches. Measured in a thread of its own, which
//! sleeps nearly all the time. The shortest pauses are too short to sleep: the thread works in them, as a service does.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use agent_common::hits::{COLD, LastHits};
use aya::maps::{MapData, PerCpuArray};
use log::debug;

use super::calibrate::{self, Between};
use crate::{attach::uprobe::Object, clock, model::MonoNs};

/// Additional cost of a hit after each pause of [`COLD`], ns.
#[derive(Clone, Copy, Debug)]
pub struct Cold {
    /// The first on its CPU.
    pub first: [f64; COLD.len()],
    /// The first of its kind, just after hits of other kinds.
    pub of_kind: [f64; COLD.len()],
}

/// Used before it is measured: the values of one machine.
pub const ASSUMED: Cold = Cold {
    first: [300.0, 400.0, 1_200.0, 3_000.0, 8_000.0, 9_000.0, 9_000.0],
    of_kind: [0.0, 50.0, 100.0, 150.0, 500.0, 600.0, 650.0],
};

/// Pauses of each length, with a probe after them and without.
const PAUSES: usize = 15;
/// Undisturbed pauses that a median needs, and how long to try for them.
const ENOUGH: usize = 3;
const PATIENCE: Duration = Duration::from_secs(1);
/// Timers may fire 50 µs late (prctl(2), PR_SET_TIMERSLACK).
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// Measures the first call of a function after each pause, with a probe and without, less the cost of a `trap`; then calls of other
/// functions, each with a probe of its own. Pauses with a target's hit on this CPU, as `last_hits` shows, are ignored. The result comes
/// within some seconds; then the probes are detached.
pub fn measure(
    object: &mut Object,
    trap: f64,
    last_hits: Arc<PerCpuArray<MapData, LastHits>>,
) -> anyhow::Result<Receiver<Cold>> {
    let links = calibrate::attach_seldom(object)?;
    let (thread_to_meter, receiver) = mpsc::sync_channel(1);
    let turn = move || {
        let cold = times(trap, &last_hits);
        drop(links);
        // The meter is dropped only when the agent ends.
        let _ = thread_to_meter.send(cold);
    };
    thread::Builder::new().name("calibration".to_owned()).spawn(turn)?;
    Ok(receiver)
}

/// The result, once there is one.
pub fn result(receiver: &mut Option<Receiver<Cold>>) -> Option<Cold> {
    match receiver.as_ref()?.try_recv() {
        Err(TryRecvError::Empty) => None,
        outcome => {
            *receiver = None;
            outcome.ok()
        }
    }
}

fn times(trap: f64, last_hits: &PerCpuArray<MapData, LastHits>) -> Cold {
    let mut cold = ASSUMED;
    let mut between = Between::hits();
    for (index, (_, from)) in COLD.into_iter().enumerate() {
        // In the middle of the pauses that it stands for.
        let pause = Duration::from_nanos(2 * from);
        let mut rest = || {
            if pause < SHORTEST_SLEEP {
                between.work_for(pause);
            } else {
                thread::sleep(pause);
            }
        };
        let (mut probed, mut bare, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let more = PATIENCE.div_duration_f64(2 * pause) as usize;
        for tried in 0..more.max(PAUSES) {
            if tried >= PAUSES && probed.len() >= ENOUGH {
                break;
            }
            let begin = clock::now();
            rest();
            let first = time(calibrate::seldom);
            let (once, again) = (time(calibrate::others), time(calibrate::others));
            if !was_hit_since(begin, last_hits) {
                probed.push(first);
                others.push((once - again) / calibrate::OTHERS as f64);
            }
            rest();
            bare.push(time(calibrate::bare));
        }
        // Where no CPU pauses for so long, no target's hit comes after such a pause either.
        if probed.len() >= ENOUGH {
            cold.first[index] = median(&mut probed) - median(&mut bare) - trap;
            cold.of_kind[index] = median(&mut others);
        }
        for costs in [&mut cold.first, &mut cold.of_kind] {
            // After a longer pause no more is left in the caches than after a shorter one.
            let before = if index > 0 { costs[index - 1] } else { 0.0 };
            costs[index] = costs[index].max(before);
        }
    }
    debug!("hits after a pause cost {cold:.0?} ns more");
    cold
}

/// Whether this CPU had a target's hit since `begin`; true if that cannot be read.
fn was_hit_since(begin: MonoNs, last_hits: &PerCpuArray<MapData, LastHits>) -> bool {
    let cpu = rustix::thread::sched_getcpu();
    let of_cpu = last_hits.get(&0, 0);
    of_cpu.map_or(true, |of_cpu| of_cpu.get(cpu).is_none_or(|at| at.last >= begin.0))
}

fn time(call: fn()) -> f64 {
    let begin = Instant::now();
    call();
    begin.elapsed().as_nanos() as f64
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
