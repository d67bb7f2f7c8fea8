//! Looks at a random part of the goroutines.

use std::{collections::BTreeSet, io};

use super::{
    GoRuntime, Goroutine, Unwinder,
    stack::ENTRIES,
    walk::{BATCH, Seen, Walk},
};
use crate::realtime;

/// What a look at some of the goroutines found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Entries of allgs, the dead ones among them, and those that were looked at.
    pub entries: u64,
    pub looked_at: u64,
    /// Those that could not be read.
    pub unread: u64,
    /// All states were read with [real-time priority](crate::realtime), so at a random time on a busy machine too.
    pub is_prompt: bool,
}

impl GoRuntime {
    /// Looks at the goroutines of `most` entries of allgs, each entry as likely as any other.
    pub fn some(&self, most: usize, random: &mut fastrand::Rng) -> io::Result<(Vec<Seen>, Looked)> {
        let (pointers, mut looked) = self.choose(self.entries_count()?, most, random)?;
        if pointers.is_empty() {
            return Ok((Vec::new(), looked));
        }
        let mut walk = Walk::default();
        self.look(pointers, self.has_c()?, &mut Vec::new(), &mut walk);
        looked.unread = walk.left_out;
        looked.is_prompt = realtime::check();
        Ok((walk.goroutines, looked))
    }

    /// The same with their stacks, for `each`. What they do is read of all first, which is short: that is what has to be of a random
    /// time. One that does something else when its stack is read has no stack.
    pub fn some_stacks(
        &self,
        most: usize,
        random: &mut fastrand::Rng,
        unwinder: &mut Unwinder,
        mut each: impl FnMut(Goroutine),
    ) -> io::Result<Looked> {
        let entries = self.entries_count()?.min(ENTRIES);
        let has_c = self.has_c()?;
        let (pointers, mut looked) = self.choose(entries, most, random)?;
        let mut found = Vec::new();
        self.each(pointers, has_c, &mut Vec::new(), |g, seen| match seen {
            Some(seen) => found.push((g, seen)),
            None => looked.unread += 1,
        });
        looked.is_prompt = realtime::check();
        for (g, seen) in found {
            realtime::check();
            each(self.with_stack(g, seen, has_c, unwinder));
        }
        Ok(looked)
    }

    /// The gs at `most` of the first `entries` entries of allgs, each entry as likely as any other; none where they could not be read.
    fn choose(&self, entries: u64, most: usize, random: &mut fastrand::Rng) -> io::Result<(Vec<u64>, Looked)> {
        let picked = picked(entries, most as u64, random);
        let mut looked = Looked {
            entries,
            looked_at: picked.len() as u64,
            ..Looked::default()
        };
        let allgs = self.at(self.globals.allgs);
        let pointers = if entries <= BATCH {
            let all = self.entries(allgs, 0, entries)?;
            all.map(|all| picked.iter().map(|at| all[*at as usize]).collect())
        } else {
            self.picked(allgs, &picked)?
        };
        if pointers.is_none() {
            looked.unread = looked.looked_at;
        }
        Ok((pointers.unwrap_or_default(), looked))
    }
}

/// As many of the numbers below `all` as there are, at most `most`: each set of as many is as likely (Floyd, 1987).
fn picked(all: u64, most: u64, random: &mut fastrand::Rng) -> Vec<u64> {
    let mut picked = BTreeSet::new();
    for last in all.saturating_sub(most)..all {
        if !picked.insert(random.u64(0..=last)) {
            picked.insert(last);
        }
    }
    picked.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_picked_as_often_as_any_other() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = [0; 20];
        for _ in 0..10_000 {
            let picked = picked(20, 5, &mut random);
            assert_eq!(picked.len(), 5);
            for at in picked {
                counts[at as usize] += 1;
            }
        }
        // 2,500 each; the standard deviation is 43.
        assert!(counts.iter().all(|count| (2_250..2_750).contains(count)), "{counts:?}");
        assert_eq!(picked(3, 5, &mut random), [0, 1, 2]);
        assert!(picked(0, 5, &mut random).is_empty());
    }
}
