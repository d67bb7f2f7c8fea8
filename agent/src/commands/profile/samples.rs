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

/// Which part of what looks saw is not on CPU, by whether it is in a system call or C, and by the outermost function.
struct Rest(HashMap<(bool, String), f64>);

impl Rest {
    fn new(seen: &mut Seen, on_cpu: &[CpuSample]) -> Self {
        let mut looked: HashMap<(bool, String), f64> = HashMap::new();
        for (key, time) in seen.sums.stacks() {
            let Some(in_call) = in_call(key.state) else { continue };
            let outermost = key
                .stack
                .pcs
                .iter()
                .rev()
                .find_map(|pc| cpu::shown(*pc, &mut seen.places));
            if let Some(frame) = outermost.as_ref().and_then(|at| at.functions.last()) {
                *looked.entry((in_call, frame.function.clone())).or_default() += time;
            }
        }
        let mut sampled: HashMap<(bool, &str), f64> = HashMap::new();
        for sample in on_cpu {
            if let Some(origin) = sample.origin() {
                *sampled.entry((sample.in_call, origin)).or_default() += sample.time;
            }
        }
        let rest = looked.into_iter().map(|((in_call, origin), time)| {
            let sampled = sampled.get(&(in_call, origin.as_str())).copied().unwrap_or(0.0);
            ((in_call, origin), (1.0 - sampled / time).max(0.0))
        });
        Self(rest.collect())
    }

    fn of(&self, state: State, outermost: Option<&Frames>) -> f64 {
        let key = in_call(state).zip(outermost.and_then(|at| at.functions.last()));
        let rest = key.and_then(|(in_call, frame)| self.0.get(&(in_call, frame.function.clone())));
        rest.copied().unwrap_or(1.0)
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
