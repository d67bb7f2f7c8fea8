//! A machine's section of docs/go-support.md: a table, what is lacking, and how far a sum was from the trace's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// What a line of it begins with where the test prints it (agent/tests/go_matrix.rs).
const PRINTED: &str = "go-support.md: ";
const LACKS: &str = "What is missing, as the agent reports it:";
const FURTHEST: &str = "Largest difference of a state's sum from the trace's: ";
const OF_WHAT: &str = " % of the goroutines' whole time.";

#[derive(Debug, Default, PartialEq)]
pub(super) struct Table {
    /// The kinds of builds, as the table's first line.
    kinds: String,
    /// Lines by a version's numbers.
    rows: BTreeMap<Vec<u32>, String>,
    lacks: BTreeSet<String>,
    /// Of all versions, %.
    furthest: f64,
}

impl Table {
    pub(super) fn read(section: &str) -> Self {
        let mut table = Self::default();
        section.lines().for_each(|line| table.take(line));
        table
    }

    /// A line of the section, or one that the test printed; others change nothing.
    pub(super) fn take(&mut self, line: &str) {
        let number = |text: &str| text.split(' ').next().and_then(|number| number.parse().ok());
        if line.starts_with("| version |") {
            line.clone_into(&mut self.kinds);
        } else if let Some(row) = line.strip_prefix("| ") {
            let version = row.split(' ').next().unwrap_or_default();
            let numbers = version.trim_start_matches("go").split('.');
            let numbers = numbers.filter_map(|number| number.parse().ok()).collect();
            self.rows.insert(numbers, line.to_owned());
        } else if line.starts_with("- `") {
            self.lacks.insert(line.to_owned());
        } else if let Some(found) = line
            .strip_prefix(FURTHEST)
            .or(line.strip_prefix("furthest "))
            .and_then(number)
        {
            self.furthest = self.furthest.max(found);
        }
    }

    /// Takes in what an earlier run had of other versions, and the same kinds. What no version lacks any more is left out.
    pub(super) fn complete(&mut self, before: &Self) {
        if before.kinds != self.kinds {
            return;
        }
        // What could not be read has no version.
        for (version, row) in before.rows.iter().filter(|(version, _)| !version.is_empty()) {
            self.rows.entry(version.clone()).or_insert_with(|| row.clone());
        }
        self.lacks.extend(before.lacks.iter().cloned());
        let rows = &self.rows;
        self.lacks.retain(|lack| {
            let what = lack.split('`').nth(1).unwrap_or_default();
            rows.values().any(|row| row.contains(what))
        });
        self.furthest = self.furthest.max(before.furthest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let columns = self.kinds.matches('|').count().saturating_sub(1);
        let mut text = format!("{}\n|{}\n", self.kinds, "---|".repeat(columns));
        for row in self.rows.values() {
            let _ = writeln!(text, "{row}");
        }
        if !self.lacks.is_empty() {
            let _ = writeln!(text, "\n{LACKS}");
        }
        for line in &self.lacks {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "\n{FURTHEST}{:.2}{OF_WHAT}", self.furthest);
        text
    }
}

/// What the test printed, out of a line that may hold a VM's own before it.
pub(super) fn printed(line: &str) -> Option<&str> {
    line.split_once(PRINTED).map(|(_, line)| line.trim_end())
}

/// The text below the heading `name`; empty when there is none.
pub(super) fn section<'a>(document: &'a str, name: &str) -> &'a str {
    parts(document, name).map_or("", |(_, section, _)| section)
}

/// The document with another text below the heading `name`, all else as it is.
pub(super) fn with_section(document: &str, name: &str, text: &str) -> String {
    match parts(document, name) {
        Some((before, _, "")) => format!("{before}{text}"),
        Some((before, _, after)) => format!("{before}{text}\n{after}"),
        None => format!("{}\n\n{}{text}", document.trim_end(), heading(name)),
    }
}

fn heading(name: &str) -> String {
    format!("## {name}\n")
}

fn parts<'a>(document: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let heading = heading(name);
    let begin = document.find(&heading)? + heading.len();
    let end = document[begin..]
        .find("\n## ")
        .map_or(document.len(), |at| begin + at + 1);
    Some((&document[..begin], &document[begin..end], &document[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMD64: &str = "| version | default |\n|---|---|\n| go1.9.1 | full |\n| go1.26.8 | full |\n\n\
        What is missing, as the agent reports it:\n- `no x`: y\n\n\
        Largest difference of a state's sum from the trace's: 0.35 % of the goroutines' whole time.\n";

    #[test]
    fn what_is_read_is_written() {
        assert_eq!(Table::read(AMD64).text(), AMD64);
    }

    #[test]
    fn lines_are_found_behind_a_vms_own() {
        for (line, expected) in [
            ("go-support.md: | go1.18.10 | full |\r", Some("| go1.18.10 | full |")),
            ("test a ... go-support.md: furthest 0.35", Some("furthest 0.35")),
            ("| go1.18.10 | full |", None),
        ] {
            assert_eq!(printed(line), expected);
        }
    }

    #[test]
    fn other_versions_stay_and_are_in_order() {
        let mut found = Table::read("| version | default |\n| go1.26.11 | no x |\n| go1.26.8 | no x |\nfurthest 0.2");
        found.complete(&Table::read(AMD64));
        let text = found.text();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| go")).collect();
        assert_eq!(
            rows,
            ["| go1.9.1 | full |", "| go1.26.8 | no x |", "| go1.26.11 | no x |"]
        );
        assert!(text.contains("0.35 %") && text.contains("- `no x`: y"));
        let mut better = Table::read("| version | default |\n| go1.26.8 | full |");
        better.complete(&Table::read(AMD64));
        assert!(!better.text().contains("no x"));
        let mut of_other_kinds = Table::read("| version | PIE |\n| go1.26.8 | full |");
        of_other_kinds.complete(&Table::read(AMD64));
        assert_eq!(of_other_kinds.rows.len(), 1);
    }

    #[test]
    fn a_machines_section_is_its_own() {
        let document = format!("# Builds\n\n## amd64\n{AMD64}\n## arm64\nold\n");
        let with = |name| with_section(&document, name, "new\n");
        assert_eq!(with("amd64"), "# Builds\n\n## amd64\nnew\n\n## arm64\nold\n");
        assert_eq!(with("arm64"), format!("# Builds\n\n## amd64\n{AMD64}\n## arm64\nnew\n"));
        assert_eq!(section(&with("arm64"), "arm64"), "new\n");
        assert_eq!(
            with_section("# Builds\n", "arm64", "new\n"),
            "# Builds\n\n## arm64\nnew\n"
        );
    }
}
