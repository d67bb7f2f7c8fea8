//! What a hit costs more after a pause, when others had the processor's caches: timed in a thread of its own, which sleeps nearly all
//! of the time that it takes.

use std::{
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use agent_common::hits::COLD;
use log::debug;

use super::calibrate;
use crate::attach::uprobe::{Links, Object};

/// What the first hit costs besides after each pause of [`COLD`], ns.
pub type Cold = [f64; COLD.len()];

/// Before it was measured: what one machine had.
pub const ASSUMED: Cold = [600.0, 900.0, 1_500.0, 3_000.0, 9_000.0, 12_000.0];

/// Calls after a pause that are timed, with a probe and without.
const CALLS: usize = 15;

/// Times the first call of a function after each pause, with a probe in it and without, less what a `trap` costs in the midst of
/// others. The result comes within some seconds; the probe is taken out then.
pub fn measure(object: &mut Object, trap: f64) -> anyhow::Result<Receiver<Cold>> {
    let link = calibrate::attach_seldom(object)?;
    let (thread_to_meter, receiver) = mpsc::sync_channel(1);
    let turn = move || {
        let cold = times(link, trap);
        // The meter is gone only when the agent ends.
        let _ = thread_to_meter.send(cold);
    };
    thread::Builder::new().name("calibration".to_owned()).spawn(turn)?;
    Ok(receiver)
}

/// What came of it, once it is there.
pub fn result(receiver: &mut Option<Receiver<Cold>>) -> Option<Cold> {
    match receiver.as_ref()?.try_recv() {
        Err(TryRecvError::Empty) => None,
        outcome => {
            *receiver = None;
            outcome.ok()
        }
    }
}

fn times(link: Links, trap: f64) -> Cold {
    let mut cold = [0.0; COLD.len()];
    for (index, (_, from)) in COLD.into_iter().enumerate() {
        // In the midst of the pauses that it stands for.
        let pause = Duration::from_nanos(2 * from);
        let (mut probed, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            probed.push(after(pause, calibrate::seldom));
            bare.push(after(pause, calibrate::bare));
        }
        let more = median(&mut probed) - median(&mut bare) - trap;
        // A longer pause leaves no more in the caches than a shorter one.
        let before = if index > 0 { cold[index - 1] } else { 0.0 };
        cold[index] = f64::max(more, before);
    }
    drop(link);
    debug!("a hit after a pause costs {cold:.0?} ns more");
    cold
}

fn after(pause: Duration, call: fn()) -> f64 {
    thread::sleep(pause);
    let begin = Instant::now();
    call();
    begin.elapsed().as_nanos() as f64
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
