//! The cost of a trap, measured again and again: a virtual machine runs faster at one moment than at the next. A trap that takes 1.1 µs
//! now may take 1.4 µs a second later, so one measurement is not enough.

use std::{
    collections::VecDeque,
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use super::calibrate::{self, Timer};
use crate::attach::uprobe::Object;

/// Differences that count in a round, and warm-up runs before them: some 20 ms in all.
const PAIRS: usize = 24;
const BEFORE: usize = 8;
/// Time between rounds: of the first ones, how many these are, and of later ones.
const SOON: Duration = Duration::from_secs(2);
const AT_FIRST: usize = 8;
const EVERY: Duration = Duration::from_secs(60);
/// Rounds that make a mean.
const KEPT: usize = 8;

/// Measures a trap every few seconds, in a thread of its own, until the receiver is dropped.
pub fn time(object: &mut Object) -> anyhow::Result<Receiver<f64>> {
    let links = calibrate::attach_empty(object)?;
    let (thread_to_meter, receiver) = mpsc::sync_channel(1);
    let turns = move || {
        let mut timer = Timer::start();
        for round in 0_usize.. {
            thread::sleep(if round < AT_FIRST { SOON } else { EVERY });
            timer.trap(BEFORE);
            // When the machine was too busy, the next round will do.
            let Some(cost) = timer.trap(PAIRS) else { continue };
            if thread_to_meter.send(cost).is_err() {
                break;
            }
        }
        drop(links);
    };
    thread::Builder::new().name("traps".to_owned()).spawn(turns)?;
    Ok(receiver)
}

/// The last rounds' costs, ns.
#[derive(Debug, Default)]
pub struct Rounds(VecDeque<f64>);

impl Rounds {
    /// Adds one, and returns the mean. Not the median: a service pays for slow moments too.
    pub fn add(&mut self, cost: f64) -> f64 {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(cost);
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_the_last_rounds() {
        let mut rounds = Rounds::default();
        assert_eq!(
            [1_000.0, 2_000.0, 3_000.0].map(|cost| rounds.add(cost)),
            [1_000.0, 1_500.0, 2_000.0]
        );
        for _ in 1..KEPT {
            rounds.add(500.0);
        }
        assert_eq!(rounds.add(500.0), 500.0);
    }
}
