//! What the terminal shows of a target: each signal makes its part, and here all of them become one, in order. `surface/summary.rs` lays it out.

use std::cmp::Reverse;

use agent_common::histogram::Series;

use crate::aggregate::{Histogram, store::Reading};

/// Most rows of one distribution that is split.
const ROWS: usize = 5;

/// What is shown of a target, or one signal's part of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Lines below the target's name.
    pub facts: Vec<String>,
    /// Rows of whole distributions.
    pub whole: Vec<Row>,
    /// Rows of parts of distributions, such as one peer's.
    pub split: Vec<Row>,
    /// Lines below the rows.
    pub notes: Vec<Note>,
}

/// A distribution with its label.
#[derive(Debug)]
pub struct Row {
    rank: u8,
    /// Whose row it is; known once all signals' parts are one.
    pub signal: &'static str,
    pub label: String,
    pub histogram: Histogram,
    /// It is shown instead of this signal's row with the same label, unless the signal is whole.
    instead_of: Option<&'static str>,
}

/// A line below the rows.
#[derive(Debug)]
pub struct Note {
    rank: u8,
    /// What it is about; "" where nothing else is said of that.
    pub about: &'static str,
    pub text: String,
}

/// Methods that add a row or a note take its rank: in each list, lower ranks come first, and equal ranks are in the order of [`super::SIGNALS`].
impl Summary {
    /// Adds a line below the target's name.
    pub fn fact(mut self, text: String) -> Self {
        self.facts.push(text);
        self
    }

    /// Adds the row of a whole distribution, unless it has no values.
    pub fn whole(mut self, rank: u8, label: &str, histogram: Histogram) -> Self {
        if histogram.count() > 0 {
            self.whole.push(Row {
                rank,
                signal: "",
                label: label.to_owned(),
                histogram,
                instead_of: None,
            });
        }
        self
    }

    /// Adds the row of a whole distribution, as [`Self::whole`]. It is shown instead of another signal's row with that label, unless that
    /// signal is whole.
    pub fn instead(self, of: &'static str, rank: u8, label: &str, histogram: Histogram) -> Self {
        let mut added = self.whole(rank, label, histogram);
        if let Some(row) = added.whole.last_mut().filter(|row| row.label == label) {
            row.instead_of = Some(of);
        }
        added
    }

    /// Adds the rows of a split distribution's [`largest`] parts, labelled by what it is split by.
    pub fn split(mut self, rank: u8, parts: Vec<(u32, &Histogram)>, label: impl Fn(u32) -> String) -> Self {
        let row = |(id, histogram): (u32, &Histogram)| Row {
            rank,
            signal: "",
            label: label(id),
            histogram: histogram.clone(),
            instead_of: None,
        };
        self.split.extend(parts.into_iter().map(row));
        self
    }

    /// Adds a line below the rows, if there is one.
    pub fn note(self, rank: u8, text: Option<String>) -> Self {
        self.note_about("", rank, text)
    }

    /// The same, of something that may be shown in another way instead.
    pub fn note_about(mut self, about: &'static str, rank: u8, text: Option<String>) -> Self {
        self.notes.extend(text.map(|text| Note { rank, about, text }));
        self
    }

    /// One of the parts of all signals, by name, which are in the order of [`super::SIGNALS`]. `is_whole` is whether a signal sees everything.
    pub fn of(parts: impl Iterator<Item = (&'static str, Self)>, is_whole: impl Fn(&str) -> bool) -> Self {
        let mut all = Self::default();
        for (signal, mut part) in parts {
            for row in part.whole.iter_mut().chain(&mut part.split) {
                row.signal = signal;
            }
            all.facts.extend(part.facts);
            all.whole.extend(part.whole);
            all.split.extend(part.split);
            all.notes.extend(part.notes);
        }
        all.whole
            .retain(|row| row.instead_of.is_none_or(|signal| !is_whole(signal)));
        let replaced: Vec<String> = all
            .whole
            .iter()
            .filter(|row| row.instead_of.is_some())
            .map(|row| row.label.clone())
            .collect();
        all.whole
            .retain(|row| row.instead_of.is_some() || !replaced.contains(&row.label));
        // These sorts are stable.
        all.whole.sort_by_key(|row| row.rank);
        all.split.sort_by_key(|row| row.rank);
        all.notes.sort_by_key(|note| note.rank);
        all
    }
}

/// The parts of a split series with the largest sums, largest first: (what the series is split by, histogram).
pub fn largest(reading: &Reading, target_id: u32, series: Series) -> Vec<(u32, &Histogram)> {
    let mut parts: Vec<_> = reading.split(target_id, series).collect();
    parts.sort_by_key(|(id, histogram)| (Reverse(histogram.sum()), *id));
    parts.truncate(ROWS);
    parts
}
