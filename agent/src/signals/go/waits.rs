//! Waits of goroutines that become spans: who waited. The span of a later wait links to them: to the last wait of each of its wakers.

use std::collections::{HashMap, VecDeque};

use super::origins::function_attributes;
use crate::{
    model::{Attribute, Link},
    signals::State,
    target::Target,
    telemetry::{
        go::{
            GOROUTINE_CREATOR_FILE, GOROUTINE_CREATOR_FUNCTION, GOROUTINE_CREATOR_LINE, GOROUTINE_ID,
            GOROUTINE_WAIT_REASON, sched::GOROUTINE_PARENT_ID,
        },
        thread::THREAD_ID,
    },
};

/// A goroutine that waited, as its event has it.
pub struct Who {
    pub goid: u64,
    /// The thread on which it ran then.
    pub tid: u32,
    /// 0 when it is not known.
    pub parent_goid: u64,
    pub startpc: u64,
    pub gopc: u64,
    pub wait_reason: u32,
}

impl Who {
    /// What its span says of it.
    pub fn attributes(&self, target: &Target, state: &State) -> Vec<Attribute> {
        let mut attributes = vec![
            Attribute::new(GOROUTINE_ID, self.goid as i64),
            Attribute::new(THREAD_ID, i64::from(self.tid)),
            Attribute::new(GOROUTINE_WAIT_REASON, state.wait_reason(self.wait_reason)),
        ];
        if self.parent_goid != 0 {
            attributes.push(Attribute::new(GOROUTINE_PARENT_ID, self.parent_goid as i64));
        }
        attributes.extend(function_attributes(self.startpc, target));
        // gopc is the return address of the call: the statement is just before it.
        if let Some(creator) = target.go_frame(self.gopc.saturating_sub(1)) {
            attributes.push(Attribute::new(GOROUTINE_CREATOR_FUNCTION, creator.function));
            attributes.push(Attribute::new(GOROUTINE_CREATOR_FILE, creator.file));
            attributes.push(Attribute::new(GOROUTINE_CREATOR_LINE, i64::from(creator.line)));
        }
        attributes
    }
}

/// Waits that a later one may link to.
const WAITS: usize = 1024;

/// Waits that became spans: by goid, and the time at which it ran again.
#[derive(Debug, Default)]
pub struct Waits {
    links: HashMap<(u64, u64), Link>,
    order: VecDeque<(u64, u64)>,
}

impl Waits {
    /// The span of a wait after which goroutine `goid` ran at this time.
    pub fn link(&self, goid: u64, ran: u64) -> Option<Link> {
        self.links.get(&(goid, ran)).copied()
    }

    /// Keeps the span of a wait, instead of the oldest one if there are too many.
    pub fn insert(&mut self, goid: u64, ran: u64, link: Link) {
        if self.order.len() == WAITS
            && let Some(oldest) = self.order.pop_front()
        {
            self.links.remove(&oldest);
        }
        self.order.push_back((goid, ran));
        self.links.insert((goid, ran), link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_waits_are_remembered_than_there_is_room_for() {
        let mut waits = Waits::default();
        for goid in 0..2 * WAITS as u64 {
            let link = Link {
                trace_id: [1; 16],
                span_id: [2; 8],
            };
            waits.insert(goid, 5, link);
        }
        assert_eq!(waits.links.len(), WAITS);
        assert!(waits.links.contains_key(&(2 * WAITS as u64 - 1, 5)));
    }
}
