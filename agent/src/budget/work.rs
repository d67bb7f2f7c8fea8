//! How much work a target does: what is counted all the time, inside and outside of windows. Pure.

/// Amounts below which a measure says too little, in the order of [`Work::measures`]: starts of goroutines, of which one in eight is counted; calls on
/// sockets; CPU time, ns.
pub(super) const LEAST: [f64; 3] = [256.0, 50.0, 1e6];
/// The numbers of starts of goroutines, and of calls on sockets, in [`Work::counts`].
pub(super) const STARTS: usize = 0;
pub(super) const MOVED: usize = 1;
/// Largest cost of observing, for each ns of the target's own CPU time, at which the latter is known well enough: it is the difference between the
/// CPU clock and that cost, which is known to about a tenth.
const COST: f64 = 0.3;

/// Work so far, or in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// CPU time that the target used for itself, ns.
    pub cpu: f64,
    /// What observing it cost, ns.
    pub cost: f64,
    /// Starts of goroutines, by the Go runtime's own count; None where there is none.
    pub starts: Option<f64>,
    /// Sends and receives on sockets; None where hooks do not see all of them.
    pub moved: Option<f64>,
}

impl Work {
    /// Number of its exact counts.
    pub const COUNTS: usize = 2;

    /// What was done since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        let since =
            |now: Option<f64>, before: Option<f64>| now.zip(before).map(|(now, before)| (now - before).max(0.0));
        Self {
            cpu: (self.cpu - earlier.cpu).max(0.0),
            cost: (self.cost - earlier.cost).max(0.0),
            starts: since(self.starts, earlier.starts),
            moved: since(self.moved, earlier.moved),
        }
    }

    /// A part of it.
    pub fn part(self, part: f64) -> Self {
        let of = |whole: f64| part * whole;
        Self {
            cpu: of(self.cpu),
            cost: of(self.cost),
            starts: self.starts.map(of),
            moved: self.moved.map(of),
        }
    }

    /// Both together. Of a measure that was not known earlier, what came later.
    pub fn and(self, later: Self) -> Self {
        let and = |before: Option<f64>, now: Option<f64>| now.map(|now| now + before.unwrap_or(0.0));
        Self {
            cpu: self.cpu + later.cpu,
            cost: self.cost + later.cost,
            starts: and(self.starts, later.starts),
            moved: and(self.moved, later.moved),
        }
    }

    /// What is counted exactly at every moment: starts of goroutines, calls on sockets. The cost of observing, and so the CPU time, is known as of the
    /// governor's last turn only, which is too long ago for a short window.
    pub fn counts(self) -> [Option<f64>; Self::COUNTS] {
        [self.starts, self.moved]
    }

    /// What is known of it: starts of goroutines, calls on sockets, CPU time.
    fn measures(self) -> [Option<f64>; LEAST.len()] {
        let cpu = (self.cost <= COST * self.cpu).then_some(self.cpu);
        [self.starts, self.moved, cpu]
    }

    /// How many times `part` it is; None where `part` is too little to say.
    pub fn ratio(self, part: Self) -> Option<f64> {
        let measures = self.measures().into_iter().zip(part.measures()).zip(LEAST);
        let mut ratios = measures.filter_map(|((whole, part), least)| {
            let part = part.filter(|part| *part >= least)?;
            Some(whole? / part)
        });
        ratios.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(cpu: f64, cost: f64, starts: Option<f64>, moved: Option<f64>) -> Work {
        Work {
            cpu,
            cost,
            starts,
            moved,
        }
    }

    #[test]
    fn the_first_measure_that_is_known_says_how_much_there_was() {
        let whole = work(100e6, 1e6, Some(9000.0), Some(400.0));
        for (part, expected) in [
            (work(1e6, 0.0, Some(300.0), Some(100.0)), Some(30.0)),
            // Too few starts, or none known.
            (work(2e6, 0.0, Some(16.0), Some(100.0)), Some(4.0)),
            (work(2e6, 0.5e6, None, Some(10.0)), Some(50.0)),
            // Too much of the CPU time is the cost of observing, or there was hardly any.
            (work(2e6, 1e6, None, None), None),
            (work(0.9e6, 0.0, Some(0.0), None), None),
            (Work::default(), None),
        ] {
            assert_eq!(whole.ratio(part), expected, "{part:?}");
        }
        assert_eq!(
            work(4e6, 0.0, None, None).ratio(work(2e6, 0.0, Some(1e6), None)),
            Some(2.0)
        );
    }

    #[test]
    fn work_adds_up() {
        let (early, late) = (work(5.0, 1.0, Some(10.0), None), work(7.0, 4.0, Some(18.0), Some(3.0)));
        assert_eq!(late.since(early), work(2.0, 3.0, Some(8.0), None));
        assert_eq!(early.since(late), work(0.0, 0.0, Some(0.0), None));
        assert_eq!(early.part(0.5).and(late), work(9.5, 4.5, Some(23.0), Some(3.0)));
        assert_eq!(late.and(early), work(12.0, 5.0, Some(28.0), None));
    }
}
