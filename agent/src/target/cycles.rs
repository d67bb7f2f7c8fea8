//! Which GC cycles of a target became traces, and which did not.

/// Which GC cycles became traces.
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

#[cfg(test)]
mod tests {
    use super::Cycles;

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
}
