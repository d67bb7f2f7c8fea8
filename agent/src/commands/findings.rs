//! What `whywait doctor` finds in a process without the kernel's side: by looks at its memory, at /proc and at cgroup files.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agent_common::hits::Plane;

use crate::{
    aggregate::store::Reading,
    clock,
    discover::Process,
    findings::{Judge, facts::Open},
    inspect::Image,
    say,
    signal::{Coverage, SignalState},
    signals::{self, ReadWhen, SIGNALS, State, Thresholds},
    surface::{output, summary::render_finding},
    target::Target,
};

/// Between two looks at a process' memory.
const PAUSE: Duration = Duration::from_millis(250);
/// Between two readings that are compared.
const APART: Duration = Duration::from_secs(1);

/// Looks at a process for this long, and prints what is found, and which rules could not be judged.
pub fn print(process: &Process, image: Option<Arc<dyn Image>>, bias: u64, time: Duration) {
    if time.is_zero() {
        return;
    }
    match look(process, image, bias, time) {
        Ok(judge) => print_found(&judge.0, &judge.1, process.pid, time),
        Err(error) => say!("  {:<18} cannot be looked for: {error:#}", "findings"),
    }
}

fn look(
    process: &Process,
    image: Option<Arc<dyn Image>>,
    bias: u64,
    time: Duration,
) -> anyhow::Result<(Judge, Vec<SignalState>)> {
    let mut target = Target::new(process.clone(), 1, Arc::default(), clock::now());
    target.bias = bias;
    let mut state = State::default();
    if let Some(image) = &image {
        // Why it cannot be read was said before.
        let _ = signals::plan::open(&**image, process.pid, bias, &mut state);
    }
    target.image = image;
    target.open_exe()?;
    state.planned = states(process.pid);
    state.restate([]);
    let none = Thresholds {
        wait: 0,
        poll: 0,
        request: 0,
    };
    signals::start(&target, &mut state, &none, &mut agent_common::target::Target::default());
    let (mut judge, begin) = (Judge::default(), Instant::now());
    let mut next = begin;
    loop {
        let is_last = begin.elapsed() >= time;
        for when in [ReadWhen::Tick, ReadWhen::Export] {
            for (_, memory) in signals::memory_reads(when) {
                // A rule that lacks it is not judged, and says so.
                let _ = (memory.read)(&target, &mut state, clock::now());
            }
        }
        if is_last || Instant::now() >= next {
            next += APART;
            let reading = Reading {
                time: clock::now(),
                ..Reading::default()
            };
            signals::note(&target, &mut state, &reading);
            judge.look(&target, &state, &reading, [Open::default(); Plane::COUNT]);
        }
        if is_last {
            return Ok((judge, state.states));
        }
        thread::sleep(PAUSE.min(time.saturating_sub(begin.elapsed())));
    }
}

/// Signals that need the kernel's side are off.
fn states(pid: u32) -> Vec<SignalState> {
    let needs_kernel = SIGNALS
        .iter()
        .filter(|signal| !signal.probes.is_empty() || signal.hook.is_some());
    let off = needs_kernel.map(|signal| SignalState {
        signal: signal.name,
        coverage: Coverage::Lacking(KERNEL.to_owned()),
    });
    off.chain(signals::plan::of_process(pid, &[])).collect()
}

const KERNEL: &str = "nothing is attached here";

fn print_found(judge: &Judge, states: &[SignalState], pid: u32, time: Duration) {
    let (found, unknown) = judge.found(states, pid);
    let time = humantime::format_duration(time);
    match found.len() {
        0 => say!("  {:<18} none in {time}", "findings"),
        count => say!("  {:<18} {count} in {time}", "findings"),
    }
    let mut picture = output::Picture::default();
    for (rule, finding) in &found {
        render_finding(&mut picture, rule, finding);
    }
    output::picture(&picture);
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (rule, reason) in unknown {
        let reason = match reason.ends_with(KERNEL) {
            true => format!("needs probes: `whywait run --pid {pid}`"),
            false => reason,
        };
        reasons.entry(reason).or_default().push(rule.name);
    }
    for (reason, rules) in reasons {
        say!("  {:<18} {}: {reason}", "not judged", rules.join(", "));
    }
}
