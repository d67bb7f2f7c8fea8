//! What looks saw and what was on CPU, together: samples, as they go into the files.

use std::collections::HashMap;

use super::{
    Seen,
    cpu::{self, CpuSample},
};
use crate::{inspect::Frame, runtime::go::State};

/// States of goroutines that run, where code on CPU is sampled.
const ON_CPU: &str = "on CPU";
const OFF_CPU: &str = "running, off CPU";

/// One stack in one state, as it goes into the files.
pub(super) struct Sample {
    pub stack: Vec<Frames>,
    pub state: &'static str,
    pub reason: Option<String>,
    /// On CPU, ns.
    pub cpu: f64,
    /// Mean number of goroutines.
    pub goroutines: f64,
    /// Their wall time, ns.
    pub wall: f64,
}

/// What is at one PC: functions that are inlined there, and the one that has the code.
pub(super) struct Frames {
    /// Run-time address less the executable's bias.
    pub vaddr: u64,
    /// Not C's, nor the kernel's.
    pub is_go: bool,
    pub functions: Vec<Frame>,
}

/// What is on CPU has a stack of its own: of what looks saw run, or be in a system call, the rest is left at what they know.
pub(super) fn samples(seen: &mut Seen) -> Vec<Sample> {
    let whole = seen.sums.time();
    let on_cpu = match &seen.on_cpu {
        Ok(Some(on_cpu)) => Some(on_cpu.named(&mut seen.places)),
        _ => None,
    };
    let rest = Rest::new(seen, on_cpu.as_deref().unwrap_or_default());
    let mut samples: Vec<Sample> = Vec::new();
    for (key, time) in seen.sums.stacks() {
        let stack: Vec<Frames> = key
            .stack
            .pcs
            .iter()
            .filter_map(|pc| cpu::shown(*pc, &mut seen.places))
            .collect();
        let reason = seen
            .reasons
            .get(key.reason as usize)
            .filter(|reason| !reason.is_empty());
        let wall = time * rest.of(key.state, stack.last());
        samples.push(Sample {
            state: match key.state {
                State::Running if on_cpu.is_some() => OFF_CPU,
                state => state.name(),
            },
            stack,
            reason: reason.filter(|_| key.state == State::Waiting).cloned(),
            cpu: 0.0,
            goroutines: wall / whole,
            wall,
        });
    }
    let of_cpu = on_cpu
        .into_iter()
        .flatten()
        .map(|CpuSample { stack, time, .. }| Sample {
            stack,
            state: ON_CPU,
            reason: None,
            cpu: time,
            goroutines: time / whole,
            wall: time,
        });
    samples.extend(of_cpu);
    samples.retain(|sample| sample.wall > 0.0);
    samples.sort_unstable_by(|a, b| b.wall.total_cmp(&a.wall));
    samples
}

/// Which part of what looks saw is not on CPU, by the outermost function.
struct Rest(HashMap<String, Parts>);

/// What is left of one function's time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parts {
    running: f64,
    /// In a system call or C.
    in_call: f64,
    other: f64,
}

impl Parts {
    /// Of what looks saw running, in calls and otherwise, where so much of each was on CPU, ns. How long a function's goroutines live,
    /// and how long they are on CPU, is known better than how looks divide that: what is on CPU beyond what they saw is taken from the
    /// rest in proportion, so all of it together stays what it was (post-stratification: Cochran, Sampling Techniques, 1977, 5A.9).
    fn new(looked: [f64; 3], on_cpu: [f64; 2]) -> Self {
        let [running, in_call, other] = looked;
        let [beyond_running, beyond_calls] = [on_cpu[0] - running, on_cpu[1] - in_call];
        let beyond = beyond_running.max(0.0) + beyond_calls.max(0.0);
        let rest = (-beyond_running).max(0.0) + (-beyond_calls).max(0.0) + other;
        let kept = (1.0 - beyond / rest.max(1.0)).max(0.0);
        let of = |looked: f64, on_cpu: f64| (1.0 - on_cpu / looked.max(1.0)).max(0.0) * kept;
        Self {
            running: of(running, on_cpu[0]),
            in_call: of(in_call, on_cpu[1]),
            other: kept,
        }
    }
}

impl Rest {
    fn new(seen: &mut Seen, on_cpu: &[CpuSample]) -> Self {
        let mut looked: HashMap<String, [f64; 3]> = HashMap::new();
        for (key, time) in seen.sums.stacks() {
            let outermost = key
                .stack
                .pcs
                .iter()
                .rev()
                .find_map(|pc| cpu::shown(*pc, &mut seen.places));
            if let Some(frame) = outermost.as_ref().and_then(|at| at.functions.last()) {
                let at = in_call(key.state).map_or(2, usize::from);
                looked.entry(frame.function.clone()).or_default()[at] += time;
            }
        }
        let mut sampled: HashMap<&str, [f64; 2]> = HashMap::new();
        for sample in on_cpu {
            if let Some(origin) = sample.origin() {
                sampled.entry(origin).or_default()[usize::from(sample.in_call)] += sample.time;
            }
        }
        let parts = looked.into_iter().map(|(origin, looked)| {
            let on_cpu = sampled.get(origin.as_str()).copied().unwrap_or_default();
            (origin, Parts::new(looked, on_cpu))
        });
        Self(parts.collect())
    }

    fn of(&self, state: State, outermost: Option<&Frames>) -> f64 {
        let function = outermost.and_then(|at| at.functions.last());
        let parts = function.and_then(|frame| self.0.get(&frame.function));
        parts.map_or(1.0, |parts| match in_call(state) {
            Some(false) => parts.running,
            Some(true) => parts.in_call,
            None => parts.other,
        })
    }
}

/// Whether a goroutine that may be on CPU is in a system call, or in C; None for one that is not on CPU.
fn in_call(state: State) -> Option<bool> {
    match state {
        State::Running => Some(false),
        State::Syscall | State::Cgo => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_function_stays_what_looks_saw() {
        let check = |looked: [f64; 3], on_cpu: [f64; 2], expected: [f64; 3]| {
            let Parts {
                running,
                in_call,
                other,
            } = Parts::new(looked, on_cpu);
            let left = [running * looked[0], in_call * looked[1], other * looked[2]];
            let is_near = |(left, expected): (f64, f64)| (left - expected).abs() < 1e-3;
            assert!(
                left.into_iter().zip(expected).all(is_near),
                "{looked:?} {on_cpu:?}: {left:?}"
            );
        };
        check([6e9, 0.0, 4e9], [0.0, 0.0], [6e9, 0.0, 4e9]);
        check([6e9, 0.0, 4e9], [5e9, 0.0], [1e9, 0.0, 4e9]);
        check([5e9, 0.0, 5e9], [6e9, 0.0], [0.0, 0.0, 4e9]);
        // What was seen in calls, and was not on CPU, gives as much as it has.
        check([5e9, 4e9, 1e9], [7e9, 1e9], [0.0, 1.5e9, 0.5e9]);
        // More than there is: nothing is left.
        check([1e9, 0.0, 0.0], [2e9, 0.0], [0.0, 0.0, 0.0]);
        check([1e9, 0.0, 1e9], [9e9, 0.0], [0.0, 0.0, 0.0]);
        check([0.0, 0.0, 1e9], [0.0, 0.0], [0.0, 0.0, 1e9]);
    }
}
