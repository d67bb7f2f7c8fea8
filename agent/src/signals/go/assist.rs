//! Mark assists: what goroutines pay for the GC because they allocate, by the function that they were started with.

use std::cmp::Reverse;

use agent_common::{
    go::{
        ABSENT,
        assist::{Assists, Payer},
    },
    histogram::Series,
    hits::HitKind,
};

use crate::{
    aggregate::store::Reading,
    attach::plan::{Plan, usable},
    inspect::{GoHook, GoImage},
    model::{Attribute, Metric, Span},
    signals::events::{Addresses, EventKind, SignalEvent},
    signals::go::origins::{by_origin, origin_attributes, started_with},
    signals::points::metric,
    signals::{Signal, State},
    target::Target,
    telemetry::go::assist::{ASSIST_COUNT, ASSIST_FUNCTIONS, ASSIST_OTHERS, ASSIST_TIME, DEFS},
};

pub const NAME: &str = "go.assist";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::GoAssist],
    series: &[Series::GoAssist],
    events: &[EventKind::of::<Assists>()],
    ..Signal::new(NAME, &DEFS, metrics)
};

/// Where an assist has paid.
pub fn plan(image: &GoImage, plan: &mut Plan) {
    let site = if plan.go.p_gc_assist_time == ABSENT {
        Err("where a P keeps the time of assists is not known".to_owned())
    } else {
        usable(image.sites.get(&GoHook::AssistEnd), &[])
    };
    plan.set_one(NAME, "go_assist", site);
}

/// Origins that a cycle's span names.
const TOLD: usize = 5;

impl SignalEvent for Assists {
    fn add_spans(&self, _: &Target, state: &mut State, _: &mut Vec<Span>) {
        // Waits for its cycle.
        state.assists = Some(*self);
    }

    fn is_part(&self) -> bool {
        true
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            starts: self.payers.iter().map(|payer| payer.startpc).collect(),
            places: Vec::new(),
        }
    }
}

/// Time and number of assists by origin.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let mut sums: Vec<_> = by_origin(target, state, reading, Series::GoAssist)
        .into_iter()
        .collect();
    sums.sort_unstable_by_key(|(key, _)| *key);
    let points = |value: fn(u64, u64) -> u64| {
        let points = sums.iter().map(|((origin, _), bucket)| {
            let attributes = origin_attributes(*origin, target);
            target.sum(value(bucket.sum, bucket.count), reading.time, attributes)
        });
        points.collect()
    };
    [
        metric(&ASSIST_TIME, points(|sum, _| sum)),
        metric(&ASSIST_COUNT, points(|_, count| count)),
    ]
    .concat()
}

/// Who paid the assists of a cycle, largest first; nothing where no window covered it.
pub fn payers(cycle: u64, target: &Target, state: &State) -> Vec<Attribute> {
    let Some(assists) = state.assists.filter(|assists| assists.number == cycle) else {
        return Vec::new();
    };
    let mut payers: Vec<Payer> = assists.payers.into_iter().filter(|payer| payer.time > 0).collect();
    payers.sort_unstable_by_key(|payer| Reverse(payer.time));
    let others: u64 = payers.iter().skip(TOLD).map(|payer| payer.time).sum();
    let told = payers.iter().take(TOLD).map(|payer| {
        let function = started_with(payer.startpc, target);
        format!("{function} {}", payer.time)
    });
    let mut attributes = vec![Attribute::new(ASSIST_FUNCTIONS, told.collect::<Vec<String>>())];
    let others = others + assists.others;
    if others > 0 {
        attributes.push(Attribute::new(ASSIST_OTHERS, others as i64));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use agent_common::go::assist::PAYERS;

    use super::*;
    use crate::{discover::Process, inspect::Frame, model::MonoNs};

    fn target() -> Target {
        let process = Process::read(std::process::id()).unwrap();
        let mut target = Target::new(process, 1, Arc::default(), MonoNs(0));
        let frame = |number: u64| Frame {
            function: format!("main.f{number}"),
            file: String::new(),
            line: 0,
        };
        target.frames = (1..10).map(|number| (number, frame(number))).collect::<HashMap<_, _>>();
        target
    }

    #[track_caller]
    fn check(times: &[u64], others: u64, told: &[&str], rest: Option<i64>) {
        let mut assists = Assists {
            number: 7,
            others,
            ..Assists::default()
        };
        for (index, time) in times.iter().enumerate() {
            assists.payers[index] = Payer {
                startpc: index as u64 + 1,
                time: *time,
            };
        }
        let target = target();
        let state = State {
            assists: Some(assists),
            ..State::default()
        };
        let told: Vec<String> = told.iter().map(|text| (*text).to_owned()).collect();
        let told = Attribute::new(ASSIST_FUNCTIONS, told);
        let rest = rest.map(|rest| Attribute::new(ASSIST_OTHERS, rest));
        assert_eq!(
            payers(7, &target, &state),
            std::iter::once(told).chain(rest).collect::<Vec<_>>()
        );
        // Another cycle's are not this one's.
        assert_eq!(payers(8, &target, &state), []);
    }

    #[test]
    fn who_paid_most_is_told_first() {
        check(&[5, 50], 0, &["main.f2 50", "main.f1 5"], None);
        check(&[5], 3, &["main.f1 5"], Some(3));
        let most = ["main.f8 8", "main.f7 7", "main.f6 6", "main.f5 5", "main.f4 4"];
        check(&[1, 2, 3, 4, 5, 6, 7, 8][..PAYERS], 10, &most, Some(16));
    }

    #[test]
    fn a_cycle_that_no_window_covered_has_no_payers() {
        assert_eq!(payers(1, &target(), &State::default()), []);
    }
}
