//! A GC cycle as a trace: sweep termination (stopped world), concurrent mark, mark termination (stopped world), by the
//! runtime's own clock.

use agent_common::go::gc::Cycle;

use crate::{
    model::{Attribute, MonoNs, Span, SpanKind},
    target::Target,
    telemetry::go::{
        GC_CPU_ASSIST, GC_CPU_DEDICATED, GC_CPU_FRACTIONAL, GC_CPU_IDLE, GC_CYCLE, GC_FORCED, GC_HEAP_AFTER,
        GC_HEAP_BEFORE, GC_HEAP_GOAL, GC_HEAP_LIVE, GC_MAX_PROCS, GC_PAUSE_TOTAL,
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
    let attributes = vec![
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
    let kind = SpanKind::Internal;
    let root = Span::root("go.gc.cycle", kind, at(cycle.sweep_term), at(cycle.end), attributes);
    let phases = [
        ("go.gc.stw.sweep_termination", cycle.sweep_term, cycle.mark),
        ("go.gc.mark", cycle.mark, cycle.mark_term),
        ("go.gc.stw.mark_termination", cycle.mark_term, cycle.end),
    ];
    let children: Vec<Span> = phases
        .into_iter()
        .map(|(name, start, end)| root.child(name, at(start), at(end), vec![number.clone()]))
        .collect();
    std::iter::once(root).chain(children).collect()
}
