//! Indices of targets in the kernel's arrays. Each belongs to one target at a time.

use agent_common::target::TARGET_LIMIT;

/// The free indices.
pub struct Indices {
    free: Vec<u32>,
}

impl Default for Indices {
    fn default() -> Self {
        Self {
            free: (1..TARGET_LIMIT).rev().collect(),
        }
    }
}

impl Indices {
    /// The index that the next target gets. It is an error if no further process can become a target: all indices are in use by the `watched`
    /// targets and those that ended a moment ago, or the agent's own limits leave nothing of the budget.
    pub fn next(&self, watched: usize, budget_scale: f64) -> anyhow::Result<u32> {
        if budget_scale == 0.0 {
            anyhow::bail!("not watched yet: the agent is at its own limits (--limit-cpu, --limit-memory)");
        }
        let Some(index) = self.free.last().copied() else {
            anyhow::bail!("not watched yet: {watched} targets are watched already");
        };
        Ok(index)
    }

    /// Marks the index that [`Self::next`] returned as used.
    pub fn take(&mut self) {
        self.free.pop();
    }

    /// Marks an index as free: nothing refers to it any more.
    pub fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }
}
