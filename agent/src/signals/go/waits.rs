//! Waits of goroutines that became spans. The span of a later wait links to them: to the last wait of each of its wakers.

use std::collections::{HashMap, VecDeque};

use crate::model::Link;

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
