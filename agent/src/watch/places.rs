//! Whether there is room for another target.

use agent_common::target::TARGET_LIMIT;

/// Indices of targets in the kernel's maps, each of one target at a time.
pub struct Places {
    free: Vec<u32>,
    /// The part of the budget that the agent's own limits leave; at 0 no new target is taken either.
    pub allowed: f64,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            free: (1..TARGET_LIMIT).rev().collect(),
            allowed: 1.0,
        }
    }
}

impl Places {
    /// The index that the next target gets, beside so many that are `watched`; an error is why it is not taken now.
    pub fn next(&self, watched: usize) -> anyhow::Result<u32> {
        if self.allowed == 0.0 {
            anyhow::bail!("not watched yet: the agent is at its own limits (--limit-cpu, --limit-memory)");
        }
        let Some(index) = self.free.last().copied() else {
            anyhow::bail!("not watched yet: {watched} targets are watched already");
        };
        Ok(index)
    }

    /// A target has the index that was next.
    pub fn take(&mut self) {
        self.free.pop();
    }

    /// Nothing refers to an index any more.
    pub fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }
}
