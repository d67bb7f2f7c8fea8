//! The table of signals, `SIGNALS` in `agent/src/signals/mod.rs`, is their only list: each signal has its row there, and no other file of the agent has a
//! signal's name in its text.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::{
    File,
    imports::{AGENT, sources, without_tests},
};

const SIGNALS: &str = "signals/";
const TABLE: &str = "signals/mod.rs";
const README: &str = "README.md";

pub(super) fn check(files: &[File]) -> Vec<String> {
    // A file that cannot be parsed is reported by the check of imports.
    let parsed: Vec<(&str, Source)> = sources(files)
        .filter_map(|(path, file)| {
            let mut source = Source::default();
            source.visit_file(&without_tests(&file.text).ok()?);
            Some((path, source))
        })
        .collect();
    let table = parsed.iter().find(|(path, _)| *path == TABLE);
    let rows = table.map(|(_, table)| table.rows.as_slice()).unwrap_or_default();
    let of_signals = parsed.iter().filter(|(path, _)| path.starts_with(SIGNALS));
    let names: BTreeMap<&str, &str> = of_signals
        .filter_map(|(path, source)| Some((source.name.as_deref()?, *path)))
        .collect();
    let mut complaints = Vec::new();
    for (name, path) in &names {
        let module = path.trim_start_matches(SIGNALS).trim_end_matches(".rs");
        let row = format!("{}::SIGNAL", module.replace('/', "::"));
        if !rows.contains(&row) {
            complaints.push(format!(
                "{AGENT}{path} is the signal `{name}`, which has no row in {AGENT}{TABLE}"
            ));
        }
    }
    if let Some(readme) = files.iter().find(|file| file.path == README) {
        let missing = names
            .iter()
            .filter(|(name, _)| !readme.text.contains(&format!("`{name}`")));
        complaints
            .extend(missing.map(|(name, path)| format!("{README} does not name the signal `{name}` ({AGENT}{path})")));
    }
    for (path, source) in &parsed {
        for text in &source.texts {
            if names.get(text.as_str()).is_some_and(|own| own != path) {
                complaints.push(format!(
                    "{AGENT}{path} has the name of the signal `{text}`: it must come from the table, {AGENT}{TABLE}"
                ));
            }
        }
    }
    complaints
}

/// What stands in a file outside of its tests.
#[derive(Default)]
struct Source {
    /// The value of `const NAME`.
    name: Option<String>,
    /// Paths that end in `SIGNAL`.
    rows: Vec<String>,
    texts: Vec<String>,
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if let syn::Expr::Lit(value) = &*item.expr
            && let syn::Lit::Str(name) = &value.lit
            && item.ident == "NAME"
        {
            self.name = Some(name.value());
        }
        visit::visit_item_const(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.last().is_some_and(|last| last == "SIGNAL") {
            self.rows.push(names.join("::"));
        }
        visit::visit_path(self, path);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.texts.push(text.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the signal `go.gc` with its row, and a file besides.
    #[track_caller]
    fn check_with(path: &str, text: &str, expected: &[&str]) {
        let file = |path: &str, text: &str| File {
            path: format!("{AGENT}{path}"),
            text: text.to_owned(),
        };
        let files = [
            file(TABLE, "const ALL: [Signal; 1] = [go::gc::SIGNAL];"),
            file("signals/go/gc.rs", "pub const NAME: &str = \"go.gc\";"),
            file(path, text),
        ];
        let complaints = check(&files);
        let short: Vec<&str> = complaints
            .iter()
            .filter_map(|text| text.split([',', ':']).next())
            .collect();
        assert_eq!(short, expected, "{path}: {text}");
    }

    #[test]
    fn each_signal_has_a_row() {
        let expected = "agent/src/signals/net/backlog.rs is the signal `net.backlog`";
        check_with(
            "signals/net/backlog.rs",
            "pub const NAME: &str = \"net.backlog\";",
            &[expected],
        );
        check_with("signals/net/address.rs", "pub fn of() {}", &[]);
    }

    #[test]
    fn the_readme_names_each_signal() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let signal = format!("{AGENT}signals/go/gc.rs");
        let rows = format!("{AGENT}{TABLE}");
        for (readme, complaints) in [("| `go.gc` | each cycle |", 0), ("go.gc and `go.gcs`", 1)] {
            let files = [
                file(&rows, "const ALL: [Signal; 1] = [go::gc::SIGNAL];"),
                file(&signal, "pub const NAME: &str = \"go.gc\";"),
                file(README, readme),
            ];
            assert_eq!(check(&files).len(), complaints, "{readme}");
        }
    }

    #[test]
    fn no_other_file_lists_signals() {
        let list = "const CHEAP: [&str; 1] = [\"go.gc\"];";
        for path in ["budget/extrapolate.rs", "signals/go/stw.rs", TABLE] {
            let expected = format!("agent/src/{path} has the name of the signal `go.gc`");
            let text = if path == TABLE {
                format!("{list} const ALL: [Signal; 1] = [go::gc::SIGNAL];")
            } else {
                list.to_owned()
            };
            check_with(path, &text, &[&expected]);
        }
    }

    #[test]
    fn tests_and_messages_may_name_them() {
        check_with(
            "commands/doctor.rs",
            "#[cfg(test)] mod tests { const OF: &str = \"go.gc\"; }",
            &[],
        );
        check_with(
            "commands/doctor.rs",
            "// go.gc\nconst SAID: &str = \"go.gc is off\";",
            &[],
        );
        check_with("signals/plan/tests.rs", list_of_gc(), &[]);
    }

    /// What a signal takes, by the one that CONTRIBUTING.md shows: four files, a row of a table or two in each crate, and
    /// lines that declare modules.
    #[test]
    fn a_signal_is_in_its_own_files_and_in_few_rows() {
        let expected = [
            ("agent-common/src/histogram.rs", 1),
            ("agent-common/src/hits.rs", 1),
            ("agent-common/src/net/mod.rs", 1),
            ("agent-common/src/net/retransmit.rs", usize::MAX),
            ("agent-ebpf/src/net/mod.rs", 1),
            ("agent-ebpf/src/net/retransmit.rs", usize::MAX),
            ("agent/src/signals/mod.rs", 1),
            ("agent/src/signals/net/mod.rs", 1),
            ("agent/src/signals/net/retransmit.rs", usize::MAX),
            ("agent/src/telemetry/net/mod.rs", 1),
            ("agent/src/telemetry/net/retransmit.rs", usize::MAX),
        ];
        let names = |line: &str| line.to_lowercase().contains("retransmit") && !line.trim_start().starts_with("//");
        let files = super::super::tracked().unwrap();
        let mut found: Vec<(&str, usize)> = files
            .iter()
            .filter(|file| {
                file.path.starts_with("agent") && file.path.contains("/src/") && !file.path.contains("/tests/")
            })
            .map(|file| (file.path.as_str(), file.text.lines().filter(|line| names(line)).count()))
            .filter(|(path, lines)| *lines > 0 || path.contains("retransmit"))
            .collect();
        found.sort_unstable();
        let paths = |of: &[(&'static str, usize)]| of.iter().map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>();
        let found_paths: Vec<String> = found.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(found_paths, paths(&expected));
        for ((path, lines), (_, most)) in found.iter().zip(expected) {
            assert!(*lines <= most, "{path} names it in {lines} lines, not {most}");
        }
    }

    fn list_of_gc() -> &'static str {
        "const ALL: [&str; 1] = [\"go.gc\"];"
    }
}
