//! Go processes whose runtime had not started when they were looked at, right after their exec: they are looked at again.

use std::{collections::HashMap, mem};

/// Looks, one at each of the governor's turns: some seconds. Then such a process is watched without its runtime, and that is
/// said.
const LOOKS: u32 = 500;

/// Processes to look at again.
#[derive(Debug, Default)]
pub struct Early {
    looks: HashMap<u32, u32>,
    due: Vec<u32>,
}

impl Early {
    /// Takes note of a process whose runtime has not started; whether it is to be looked at again.
    pub fn wait(&mut self, pid: u32) -> bool {
        let looks = self.looks.entry(pid).or_default();
        *looks += 1;
        if *looks < LOOKS {
            self.due.push(pid);
        } else {
            self.looks.remove(&pid);
        }
        self.due.last() == Some(&pid)
    }

    /// Whether there are any.
    pub fn is_waiting(&self) -> bool {
        !self.due.is_empty()
    }

    /// Those that it is time for.
    pub fn due(&mut self) -> Vec<u32> {
        mem::take(&mut self.due)
    }

    /// A process has started, or ended.
    pub fn forget(&mut self, pid: u32) {
        self.looks.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_looked_at_for_some_time_only() {
        let mut early = Early::default();
        let mut looks = 0;
        while early.wait(7) {
            looks += 1;
            assert_eq!(early.due(), [7]);
        }
        assert_eq!(looks, LOOKS - 1);
        // Another process has its pid by now.
        assert!(early.wait(7));
        assert_eq!(early.due(), [7]);
        early.forget(7);
        assert!(early.due().is_empty() && early.looks.is_empty());
    }
}
