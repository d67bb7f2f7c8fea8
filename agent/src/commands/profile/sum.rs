//! What all looks together say: wall time by stack and state, and each origin's share with its standard error.

use std::collections::HashMap;

use crate::runtime::go::{Category, Stack, State};

/// PCs of all stacks that are kept apart: 16 MB.
const KEPT: usize = 1 << 20;
/// Categories whose shares are kept apart.
const CATEGORIES: usize = 1 << 14;

/// A stack, and what its goroutine does there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub stack: Stack,
    pub state: State,
    /// A runtime.waitReason.
    pub reason: u32,
}

/// A category's part of the wall time of all goroutines, with the standard error of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub category: Category,
    pub share: f64,
    pub error: f64,
}

/// Sums over looks. A look's time is that since the last one, times what it saw, ns.
#[derive(Default)]
pub(super) struct Sums {
    looks: u64,
    /// How long it was looked, ns.
    span: f64,
    /// Goroutines' time: its sum, and that of its squares.
    time: f64,
    squares: f64,
    stacks: HashMap<Key, f64>,
    kept: usize,
    without_stack: f64,
    not_kept: f64,
    categories: HashMap<Category, OfCategory>,
}

#[derive(Clone, Copy, Default)]
struct OfCategory {
    time: f64,
    squares: f64,
    /// Its time times that of all, look by look.
    products: f64,
}

impl Sums {
    /// Takes note of a look. Each goroutine that it saw stands for `weight` ns of wall time, as it comes `span` ns after the last; the
    /// flag says whether its stack is known.
    pub fn note(&mut self, seen: impl Iterator<Item = (Category, Key, bool)>, weight: f64, span: f64) {
        let mut counts: HashMap<Category, f64> = HashMap::new();
        let mut whole = 0.0;
        for (category, key, has_stack) in seen {
            *counts.entry(category).or_default() += weight;
            whole += weight;
            if !has_stack {
                self.without_stack += weight;
            }
            self.add(key, weight);
        }
        self.looks += 1;
        self.span += span;
        self.time += whole;
        self.squares += whole * whole;
        for (category, time) in counts {
            if self.categories.len() >= CATEGORIES && !self.categories.contains_key(&category) {
                continue;
            }
            let sum = self.categories.entry(category).or_default();
            sum.time += time;
            sum.squares += time * time;
            sum.products += time * whole;
        }
    }

    fn add(&mut self, mut key: Key, weight: f64) {
        if !self.stacks.contains_key(&key) {
            if self.kept + key.stack.pcs.len() > KEPT {
                self.not_kept += weight;
                // What is left of it is where it began.
                let outer = key.stack.pcs.len().saturating_sub(2);
                key.stack.pcs.drain(..outer);
                key.stack.is_cut = true;
            } else {
                self.kept += key.stack.pcs.len();
            }
        }
        *self.stacks.entry(key).or_default() += weight;
    }

    /// How long it was looked, ns.
    pub fn time(&self) -> f64 {
        self.span.max(1.0)
    }

    /// Mean number of goroutines.
    pub fn mean(&self) -> f64 {
        self.time / self.time()
    }

    /// Each stack's wall time, ns.
    pub fn stacks(&self) -> impl Iterator<Item = (&Key, f64)> {
        self.stacks.iter().map(|(key, time)| (key, *time))
    }

    /// Parts of the whole: of goroutines without a stack, and of stacks that are not kept apart.
    pub fn without_stack(&self) -> f64 {
        self.without_stack / self.time.max(1.0)
    }

    pub fn not_kept(&self) -> f64 {
        self.not_kept / self.time.max(1.0)
    }

    /// All shares, largest first. A share is a ratio of two sums over looks; its variance is that of the residuals (Cochran, Sampling
    /// Techniques, 1977, 6.4).
    pub fn shares(&self) -> Vec<Share> {
        let (looks, whole) = (self.looks as f64, self.time.max(1.0));
        let of = |(category, sum): (&Category, &OfCategory)| {
            let share = sum.time / whole;
            let residuals = sum.squares - 2.0 * share * sum.products + share * share * self.squares;
            let variance = residuals.max(0.0) * looks / (looks - 1.0).max(1.0);
            Share {
                category: *category,
                share,
                error: variance.sqrt() / whole,
            }
        };
        let mut shares: Vec<Share> = self.categories.iter().map(of).collect();
        shares.sort_unstable_by(|a, b| b.share.total_cmp(&a.share).then(a.category.cmp(&b.category)));
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::go::StackPc;

    fn seen(startpc: u64) -> (Category, Key, bool) {
        let (state, reason) = (State::Waiting, 2);
        let pcs = vec![StackPc {
            vaddr: startpc,
            is_call: false,
        }];
        let stack = Stack { pcs, is_cut: false };
        (Category { startpc, state, reason }, Key { stack, state, reason }, true)
    }

    #[test]
    fn what_stands_still_has_no_error() {
        let mut sums = Sums::default();
        for span in [10e6, 20e6, 15e6] {
            let all = (0..10).map(|number| seen(if number < 6 { 0x10 } else { 0x20 }));
            sums.note(all, span, span);
        }
        let shares = sums.shares();
        assert_eq!(
            shares.iter().map(|share| share.category.startpc).collect::<Vec<_>>(),
            [0x10, 0x20]
        );
        for (share, expected) in shares.iter().zip([0.6, 0.4]) {
            assert!((share.share - expected).abs() < 1e-9 && share.error < 1e-6, "{share:?}");
        }
        assert!((sums.mean() - 10.0).abs() < 1e-9);
        let wall: f64 = sums.stacks().map(|(_, time)| time).sum();
        assert!((wall - 450e6).abs() < 1.0, "{wall}");
    }

    /// Looks at 50 of 1000, of which 300 are of one origin: the error that is told is the one that is made.
    #[test]
    fn the_error_is_that_of_the_share() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut squares, mut told) = (0.0, 0.0);
        const RUNS: usize = 200;
        for _ in 0..RUNS {
            let mut sums = Sums::default();
            for _ in 0..40 {
                let picked = random.choose_multiple(0..1000, 50);
                let all = picked.into_iter().map(|at| seen(if at < 300 { 0x10 } else { 0x20 }));
                sums.note(all, 20.0 * 1e7, 1e7);
            }
            let shares = sums.shares();
            let share = shares.iter().find(|share| share.category.startpc == 0x10).unwrap();
            squares += (share.share - 0.3).powi(2);
            told += share.error;
        }
        let (made, told) = ((squares / RUNS as f64).sqrt(), told / RUNS as f64);
        // sqrt(0.3 · 0.7 / 2000 · 0.95) = 0.01.
        assert!((0.8..1.25).contains(&(made / told)), "{made} {told}");
        assert!((0.008..0.012).contains(&told), "{told}");
    }
}
