//! What events become. A type of events is implemented in the file of the signal that it belongs to, and the signal's row has it.

use agent_common::event::Kind;

use super::{ALL, State, process::quota};
use crate::{
    intake::{Event, Payload},
    model::Span,
    target::Target,
};

/// An event of a signal.
pub trait SignalEvent {
    /// Adds the spans that it becomes.
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>);

    /// For how much of its time the quota of a cgroup throttled threads, ns.
    fn throttled(&self) -> u64 {
        0
    }

    /// Whether it becomes no span of its own, but a part of those of a GC cycle, which comes later.
    fn is_part(&self) -> bool {
        false
    }

    /// Where in the code its spans refer to.
    fn addresses(&self) -> Addresses {
        Addresses::default()
    }
}

/// Addresses in a target's code, whose names a recording needs.
#[derive(Default)]
pub struct Addresses {
    /// Of functions that goroutines were started with.
    pub starts: Vec<u64>,
    /// Of places in functions.
    pub places: Vec<u64>,
}

/// A kind of events, as a signal's row has it.
#[derive(Clone, Copy)]
pub struct EventKind {
    pub kind: Kind,
    view: View,
}

/// An event as its signal's; None if it is of another kind.
type View = fn(&Event) -> Option<&dyn SignalEvent>;

impl EventKind {
    /// The kind of this type.
    pub const fn of<T: Payload + SignalEvent>() -> Self {
        fn view<T: Payload + SignalEvent>(event: &Event) -> Option<&dyn SignalEvent> {
            T::of(event).map(|event| -> &dyn SignalEvent { event })
        }
        Self {
            kind: T::KIND,
            view: view::<T>,
        }
    }
}

/// By kind: the signals' rows in one array, as there may be a hundred thousand events a second.
static VIEWS: [Option<View>; Event::KINDS.len() + 1] = {
    let mut views: [Option<View>; Event::KINDS.len() + 1] = [None; Event::KINDS.len() + 1];
    let mut signal = 0;
    while signal < ALL.len() {
        let events = ALL[signal].events;
        let mut index = 0;
        while index < events.len() {
            let EventKind { kind, view } = events[index];
            assert!(views[kind as usize].is_none(), "a kind of events is in two rows");
            views[kind as usize] = Some(view);
            index += 1;
        }
        signal += 1;
    }
    views
};

/// An event as its signal's; None if it is the agent's own.
fn of_signal(event: &Event) -> Option<&dyn SignalEvent> {
    VIEWS[event.kind() as usize].and_then(|view| view(event))
}

/// Adds the spans that an event of `target` becomes.
pub fn add_spans(event: &Event, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
    if let Some(event) = of_signal(event) {
        quota::glance(target, state, event.throttled());
        event.add_spans(target, state, spans);
    }
}

/// Whether an event becomes spans only with a GC cycle, which comes later.
pub fn is_part(event: &Event) -> bool {
    of_signal(event).is_some_and(SignalEvent::is_part)
}

/// Where in the code an event's spans refer to.
pub fn addresses(event: &Event) -> Addresses {
    of_signal(event).map_or_else(Addresses::default, SignalEvent::addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_events_belongs_to_one_signal() {
        for kind in Event::KINDS {
            let rows = ALL.iter().filter(|signal| {
                let mut events = signal.events.iter();
                events.any(|event| event.kind == *kind)
            });
            let names: Vec<&str> = rows.map(|signal| signal.name).collect();
            // The agent itself looks at new processes.
            let expected = usize::from(*kind != Kind::Exec);
            assert_eq!(names.len(), expected, "{kind:?}: {names:?}");
        }
    }
}
