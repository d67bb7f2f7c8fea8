//! A GC cycle as a trace: sweep termination (stopped world), concurrent mark, mark termination (stopped world), by the
//! runtime's own clock.

use agent_common::go::{
    gc::Cycle,
    stw::{MARK_TERMINATION, SWEEP_TERMINATION},
};

use super::stw;
use crate::{
    model::{Attribute, MonoNs, Span, SpanKind},
    target::Target,
    telemetry::go::{
        GC_CPU_ASSIST, GC_CPU_DEDICATED, GC_CPU_FRACTIONAL, GC_CPU_IDLE, GC_CYCLE, GC_FORCED, GC_GOAL_BY, GC_GOGC,
        GC_HEAP_AFTER, GC_HEAP_BEFORE, GC_HEAP_GOAL, GC_HEAP_LIVE, GC_MAX_PROCS, GC_MEMORY_LIMIT, GC_PAUSE_TOTAL,
    },
};

pub const NAME: &str = "go.gc";

/// The cycle and its three phases; nothing for a cycle that was seen already. Cycles that were missed are counted.
pub fn spans(cycle: &Cycle, target: &mut Target) -> Vec<Span> {
    if !target.note_cycle(cycle.number) {
        return Vec::new();
    }
    let at = |time: i64| MonoNs(time.max(0) as u64);
    let number = Attribute::new(GC_CYCLE, cycle.number as i64);
    let mut attributes = vec![
        number.clone(),
        Attribute::new(GC_HEAP_BEFORE, cycle.heap_before as i64),
        Attribute::new(GC_HEAP_AFTER, cycle.heap_after as i64),
        Attribute::new(GC_HEAP_LIVE, cycle.heap_live as i64),
        Attribute::new(GC_HEAP_GOAL, cycle.heap_goal as i64),
        Attribute::new(GC_FORCED, cycle.forced != 0),
        Attribute::new(GC_MAX_PROCS, i64::from(cycle.max_procs)),
        Attribute::new(GC_PAUSE_TOTAL, cycle.pause),
        Attribute::new(GC_CPU_ASSIST, cycle.assist),
        Attribute::new(GC_CPU_DEDICATED, cycle.dedicated),
        Attribute::new(GC_CPU_FRACTIONAL, cycle.fractional),
        Attribute::new(GC_CPU_IDLE, cycle.idle),
    ];
    attributes.extend(pacing(target));
    let stops = [
        target.stops.within(SWEEP_TERMINATION, cycle.sweep_term, cycle.mark),
        target.stops.within(MARK_TERMINATION, cycle.mark_term, cycle.end),
    ];
    attributes.extend(stops[0].iter().flat_map(|stop| stw::trigger(stop, target)));
    let kind = SpanKind::Internal;
    let root = Span::root("go.gc.cycle", kind, at(cycle.sweep_term), at(cycle.end), attributes);
    let phases = [
        ("go.gc.stw.sweep_termination", cycle.sweep_term, cycle.mark, stops[0]),
        ("go.gc.mark", cycle.mark, cycle.mark_term, None),
        ("go.gc.stw.mark_termination", cycle.mark_term, cycle.end, stops[1]),
    ];
    let mut spans = vec![root];
    for (name, start, end, stop) in phases {
        let late = stop.iter().flat_map(|stop| stw::late(stop, target));
        let attributes = std::iter::once(number.clone()).chain(late).collect();
        let phase = spans[0].child(name, at(start), at(end), attributes);
        let parts = stop.map_or_else(Vec::new, |stop| stw::parts(&stop, &phase));
        spans.push(phase);
        spans.extend(parts);
    }
    spans
}

/// What sets the heap's goal, as it was read last.
fn pacing(target: &Target) -> Vec<Attribute> {
    let latest = target.go.as_ref().and_then(|go| go.latest.as_ref());
    let Some((_, snapshot)) = latest else { return Vec::new() };
    let mut attributes = vec![Attribute::new(GC_GOGC, snapshot.gogc)];
    attributes.extend(
        snapshot
            .memory_limit
            .map(|limit| Attribute::new(GC_MEMORY_LIMIT, limit as i64)),
    );
    attributes.extend(snapshot.heap_goal.map(|_| {
        let by = if snapshot.goal_by_limit { "gomemlimit" } else { "gogc" };
        Attribute::new(GC_GOAL_BY, by)
    }));
    attributes
}
