//! A GC cycle as a trace: sweep termination (stopped world), concurrent mark, mark termination (stopped world), by the
//! runtime's own clock.

use agent_common::{
    go::{
        gc::Cycle,
        stw::{MARK_TERMINATION, SWEEP_TERMINATION, Stop},
    },
    hits::HitKind,
};

use super::{assist, stw};
use crate::{
    attach::plan::{Plan, usable},
    inspect::{GoHook, GoImage},
    model::{Attribute, MonoNs, Span, SpanKind},
    runtime::go::{bounded, gogc},
    signals::events::{EventKind, SignalEvent},
    signals::{Check, Need, Signal, State},
    target::Target,
    telemetry::go::{
        GC_MAX_PROCS,
        gc::{
            DEFS, GC_CPU_ASSIST, GC_CPU_DEDICATED, GC_CPU_FRACTIONAL, GC_CPU_IDLE, GC_CYCLE, GC_FORCED, GC_GOAL_BY,
            GC_GOGC, GC_HEAP_AFTER, GC_HEAP_BEFORE, GC_HEAP_GOAL, GC_HEAP_LIVE, GC_MEMORY_LIMIT, GC_PAUSE_TOTAL,
        },
    },
};

pub const NAME: &str = "go.gc";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::GoGcCycle],
    always: true,
    needs: &[
        Need {
            of: stw::NAME,
            lost: "the cause of cycles, and the last to stop for them, are not reported",
        },
        Need {
            of: assist::NAME,
            lost: "a cycle's assists by function are not reported",
        },
    ],
    events: &[EventKind::of::<Cycle>()],
    check: Some(Check {
        what: "cycles",
        count: |_, state, _| state.cycles.exported,
    }),
    ..Signal::new(NAME, &DEFS, |_, _, _| Vec::new())
};

/// Where the end of a cycle is seen.
pub fn plan(image: &GoImage, plan: &mut Plan) {
    let site = usable(image.sites.get(&GoHook::GcCycleEnd), &[]);
    plan.set_one(NAME, "go_gc_cycle", site);
}

/// Which GC cycles of a target became traces, and which did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycles {
    /// The last one's number; 0 before the first.
    pub last: u64,
    pub exported: u64,
    /// Seen, and not traced for `--max-spans`.
    pub left_out: u64,
    /// Numbers between two seen ones that never came.
    pub missed: u64,
    /// Numbers that came again.
    pub repeated: u64,
}

impl Cycles {
    /// Takes note of a cycle that becomes a trace; false when it was seen before.
    pub fn note(&mut self, number: u64) -> bool {
        let new = self.see(number);
        self.exported += u64::from(new);
        new
    }

    /// Takes note of a cycle that does not.
    pub fn leave_out(&mut self, number: u64) {
        self.left_out += u64::from(self.see(number));
    }

    fn see(&mut self, number: u64) -> bool {
        if number <= self.last {
            self.repeated += 1;
            return false;
        }
        if self.last != 0 {
            self.missed += number - self.last - 1;
        }
        self.last = number;
        true
    }
}

impl SignalEvent for Cycle {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.extend(self::spans(self, target, state));
    }
}

/// The cycle and its three phases; nothing for a cycle that was seen already. Cycles that were missed are counted.
pub fn spans(cycle: &Cycle, target: &Target, state: &mut State) -> Vec<Span> {
    if !state.cycles.note(cycle.number) {
        return Vec::new();
    }
    let at = |time: i64| MonoNs(time.max(0) as u64);
    let number = Attribute::new(GC_CYCLE, cycle.number as i64);
    let mut attributes = vec![
        number.clone(),
        Attribute::new(GC_HEAP_BEFORE, cycle.heap_before as i64),
        Attribute::new(GC_HEAP_AFTER, cycle.heap_after as i64),
        Attribute::new(GC_HEAP_LIVE, cycle.heap_live as i64),
        Attribute::new(GC_FORCED, cycle.forced != 0),
        Attribute::new(GC_MAX_PROCS, i64::from(cycle.max_procs)),
        Attribute::new(GC_PAUSE_TOTAL, cycle.pause),
        Attribute::new(GC_CPU_ASSIST, cycle.assist),
        Attribute::new(GC_CPU_DEDICATED, cycle.dedicated),
        Attribute::new(GC_CPU_FRACTIONAL, cycle.fractional),
        Attribute::new(GC_CPU_IDLE, cycle.idle),
    ];
    let stops = [
        state.stops.within(SWEEP_TERMINATION, cycle.sweep_term, cycle.mark),
        state.stops.within(MARK_TERMINATION, cycle.mark_term, cycle.end),
    ];
    attributes.extend(pacing(cycle, stops[0].as_ref()));
    attributes.extend(stops[0].iter().flat_map(|stop| stw::trigger(stop, target)));
    attributes.extend(assist::payers(cycle.number, target, state));
    let kind = SpanKind::Internal;
    let root = Span::root("go.gc.cycle", kind, at(cycle.sweep_term), at(cycle.end), attributes);
    let phases = [
        ("go.gc.stw.sweep_termination", cycle.sweep_term, cycle.mark, stops[0]),
        ("go.gc.mark", cycle.mark, cycle.mark_term, None),
        ("go.gc.stw.mark_termination", cycle.mark_term, cycle.end, stops[1]),
    ];
    let mut spans = vec![root];
    for (name, start, end, stop) in phases {
        let last = stop.iter().flat_map(|stop| stw::last_to_stop(stop, target, state));
        let attributes = std::iter::once(number.clone()).chain(last).collect();
        let phase = spans[0].child(name, at(start), at(end), attributes);
        let parts = stop.map_or_else(Vec::new, |stop| stw::parts(&stop, &phase));
        spans.push(phase);
        spans.extend(parts);
    }
    spans
}

/// GOGC, GOMEMLIMIT, the heap's goal, as far as there are any, and which of the two set it: the goal is below what GOGC asks for only by the other
/// (go1.26, runtime/mgcpacer.go, heapGoalInternal). `begin` is the stop that began the cycle.
fn pacing(cycle: &Cycle, begin: Option<&Stop>) -> Vec<Attribute> {
    let gogc = i32::try_from(cycle.gogc).ok().and_then(gogc);
    let limit = u64::try_from(cycle.memory_limit).ok().and_then(bounded);
    // 0: the version keeps none.
    let known = |goal: u64| Some(goal).filter(|goal| *goal != 0);
    let goal = known(cycle.heap_goal).and_then(bounded);
    // All ones where GOGC is off: that is above any goal.
    let percent_goal = begin.and_then(|stop| known(stop.percent_goal));
    let by = match (limit, goal, percent_goal) {
        (None, ..) => gogc.map(|_| "gogc"),
        (_, None, _) | (_, _, None) => None,
        (_, Some(goal), Some(percent_goal)) if goal < percent_goal => Some("gomemlimit"),
        _ => Some("gogc"),
    };
    let numbers = [(GC_GOGC, gogc), (GC_MEMORY_LIMIT, limit), (GC_HEAP_GOAL, goal)];
    let numbers = numbers
        .into_iter()
        .filter_map(|(key, number)| Some(Attribute::new(key, number? as i64)));
    let mut attributes: Vec<_> = numbers.collect();
    attributes.extend(by.map(|by| Attribute::new(GC_GOAL_BY, by)));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    #[track_caller]
    fn check(cycle: (u64, i64, Option<u64>), expected: Option<&'static str>) {
        check_of(100, cycle, expected);
        if expected != Some("gogc") {
            check_of(-1, cycle, expected);
        }
    }

    #[track_caller]
    fn check_of(gogc: i64, (goal, limit, percent_goal): (u64, i64, Option<u64>), expected: Option<&'static str>) {
        let cycle = Cycle {
            gogc,
            heap_goal: goal,
            memory_limit: limit,
            ..Cycle::default()
        };
        let begin = percent_goal.map(|percent_goal| Stop {
            percent_goal,
            ..Stop::default()
        });
        let attributes = pacing(&cycle, begin.as_ref());
        let by = |by| attributes.contains(&Attribute::new(GC_GOAL_BY, by));
        let found = ["gogc", "gomemlimit"].into_iter().find(|name| by(*name));
        assert_eq!(found, expected);
        let number = |key: &str| match attributes.iter().find(|attribute| attribute.key == key)?.value {
            Value::I64(number) => Some(number),
            _ => None,
        };
        let there = (goal != 0 && goal < 1 << 60).then_some(goal as i64);
        assert_eq!(number(GC_HEAP_GOAL), there);
        assert_eq!(number(GC_GOGC), (gogc >= 0).then_some(gogc));
        assert_eq!(number(GC_MEMORY_LIMIT), (limit < 1 << 60).then_some(limit));
    }

    #[test]
    fn what_is_off_is_absent() {
        // GOGC=off, no GOMEMLIMIT, and runtime.GC() asked for it: nothing sets a goal.
        check_of(-1, (u64::MAX, i64::MAX, Some(u64::MAX)), None);
        // What go1.26 makes of no limit.
        check_of(-1, (8_946_670_875_744_333_991, i64::MAX, Some(u64::MAX)), None);
        check_of(-1, (60 << 20, 64 << 20, Some(u64::MAX)), Some("gomemlimit"));
        check_of(0, (4 << 20, i64::MAX, Some(4 << 20)), Some("gogc"));
        // debug.SetMemoryLimit(math.MaxInt64 - 1).
        check_of(-1, (u64::MAX, i64::MAX - 1, Some(u64::MAX)), None);
        check_of(100, (4 << 20, i64::MAX - 1, None), Some("gogc"));
    }

    #[test]
    fn every_cycle_once_and_gaps_are_counted() {
        let mut cycles = Cycles::default();
        let seen: Vec<bool> = [7, 8, 8, 11, 10]
            .into_iter()
            .map(|number| cycles.note(number))
            .collect();
        assert_eq!(seen, [true, true, false, true, false]);
        cycles.leave_out(12);
        assert_eq!(
            cycles,
            Cycles {
                last: 12,
                exported: 3,
                left_out: 1,
                missed: 2,
                repeated: 2
            }
        );
    }

    #[test]
    fn the_lower_goal_is_told_by_what_set_it() {
        check((4 << 20, i64::MAX, None), Some("gogc"));
        check((4 << 20, 64 << 20, Some(4 << 20)), Some("gogc"));
        check((5 << 20, 64 << 20, Some(4 << 20)), Some("gogc"));
        check((60 << 20, 64 << 20, Some(100 << 20)), Some("gomemlimit"));
        // GOGC=off.
        check((60 << 20, 64 << 20, Some(u64::MAX)), Some("gomemlimit"));
        // The stop that began it was not seen, or the version keeps no goal.
        check((60 << 20, 64 << 20, None), None);
        check((0, 64 << 20, Some(100 << 20)), None);
    }
}
