//! What the signals of one target keep between events: each one's in a type of its own file. Facts live here, never in statics.

use std::{collections::HashMap, sync::Arc, time::Duration};

use agent_common::{go::assist::Assists, histogram::Series};

use super::{
    go::{
        gc::Cycles, goroutines::Goroutines, origins::Origins, runtime::GoState, stops::Stops, wait::Wall, waits::Waits,
    },
    plan::states_now,
    process::quota::Quotas,
    thread::totals::Totals,
};
use crate::{
    attach::plan::Failure,
    looks::Looks,
    model::{Exemplar, Span},
    runtime::go::GoRuntime,
    signal::SignalState,
};

/// How long a window waits for the number of starts.
const PATIENCE: Duration = Duration::from_millis(200);
/// Exemplars kept for a series between two exports.
const EXEMPLARS: usize = 4;

/// The state of a target's signals.
#[derive(Default)]
pub struct State {
    /// What there could be of each signal.
    pub planned: Vec<SignalState>,
    /// What is on now, in part, or off, and why: see [`Self::restate`].
    pub states: Vec<SignalState>,
    /// CPU quotas that it is under; None when they are left out.
    pub quotas: Option<Quotas>,
    /// The kernel's account of its threads; None when it is left out.
    pub totals: Option<Totals>,
    /// Plane 0 of a Go process.
    pub go: Option<GoState>,
    /// The Go runtime's names of wait reasons, by number.
    pub wait_reasons: Vec<String>,
    /// Functions that goroutines were started with, whose time is shown apart: ids of [`Series::GoTime`].
    pub origins: Origins,
    /// Waits of goroutines that became spans, of late.
    pub waits: Waits,
    /// The GC's stops of the world, until their cycle is seen.
    pub stops: Stops,
    /// Who paid the mark assists of a GC cycle, until that is seen.
    pub assists: Option<Assists>,
    /// Has things looked at; None where nothing is, as of a recorded process.
    pub looks: Option<Arc<Looks>>,
    /// Wall time of goroutines.
    pub wall: Wall,
    /// Goroutines alive.
    pub goroutines: Goroutines,
    /// GC cycles exported, and numbers that were skipped.
    pub cycles: Cycles,
    /// Spans that series point at, by series and part: see [`Self::remember`].
    pub exemplars: HashMap<(u16, u32), Vec<Exemplar>>,
}

impl State {
    /// Says anew what there is of each signal, while there are these `failures`.
    pub fn restate<'a>(&mut self, failures: impl IntoIterator<Item = &'a Failure>) {
        self.states = states_now(&self.planned, failures);
    }

    /// How many threads run the process' own code at once, at most, where its runtime says.
    pub fn threads(&self) -> Option<u64> {
        let (_, snapshot) = self.go.as_ref()?.latest.as_ref()?;
        Some(snapshot.gomaxprocs)
    }

    /// Starts of goroutines so far, as the Go runtime of the process `pid` counts them; None where it does not, or does not answer.
    pub fn starts(&self, pid: u32) -> Option<u64> {
        let go = self.go.as_ref()?;
        go.read(pid, PATIENCE, GoRuntime::starts).ok()?
    }

    /// Whether a signal was left out, or cannot be had.
    pub fn is_off(&self, signal: &str) -> bool {
        is_off(&self.states, signal)
    }

    /// The same, and it is not to be expected later either.
    pub fn is_never_on(&self, signal: &str) -> bool {
        is_off(&self.planned, signal)
    }

    /// The runtime's name of a wait reason.
    pub fn wait_reason(&self, number: u32) -> String {
        match self.wait_reasons.get(number as usize) {
            Some(name) if name.is_empty() => "none".to_owned(),
            Some(name) => name.clone(),
            None => format!("reason {number}"),
        }
    }

    /// Keeps a span as an exemplar of its series.
    pub fn remember(&mut self, series: Series, id: u32, span: &Span) {
        let kept = self.exemplars.entry((series as u16, id)).or_default();
        if kept.len() == EXEMPLARS {
            kept.remove(0);
        }
        kept.push(Exemplar {
            time: span.end,
            value: span.end.0.saturating_sub(span.start.0) as f64 / 1e9,
            trace_id: span.trace_id,
            span_id: span.span_id,
        });
    }

    /// The exemplars of a series since the last [`Self::forget_exemplars`].
    pub fn exemplars(&self, series: Series, id: u32) -> Vec<Exemplar> {
        self.exemplars.get(&(series as u16, id)).cloned().unwrap_or_default()
    }

    /// Drops exemplars that were exported.
    pub fn forget_exemplars(&mut self) {
        self.exemplars.clear();
    }
}

fn is_off(states: &[SignalState], signal: &str) -> bool {
    let mut states = states.iter();
    states.any(|state| state.signal == signal && state.coverage.is_off())
}
