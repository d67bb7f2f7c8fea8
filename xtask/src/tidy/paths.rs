//! A source file that a document names is there.

use super::File;

/// Documents that name files of other projects, and whose.
const OF_OTHERS: &[(&str, &str)] = &[("docs/design/tokio-hooks.md", "tokio's own sources")];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let exists = |named: &str| {
        let mut paths = files.iter().map(|file| file.path.as_str());
        paths.any(|path| {
            path.strip_suffix(named)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        })
    };
    let documents = files
        .iter()
        .filter(|file| file.path.ends_with(".md") && !OF_OTHERS.iter().any(|(path, _)| *path == file.path));
    let mut complaints = Vec::new();
    for file in documents {
        // What stands between backticks is every other part.
        for named in file.text.split('`').skip(1).step_by(2) {
            let is_path = named.ends_with(".rs") && !named.contains(|letter: char| "{*<> \n".contains(letter));
            if is_path && !exists(named) {
                complaints.push(format!("{} names `{named}`, which is not there", file.path));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_files_that_are_there() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        for (document, text, expected) in [
            (
                "README.md",
                "`agent/src/budget/ledger.rs`, `budget/ledger.rs`, `ledger.rs`",
                0,
            ),
            ("README.md", "`signals/{go,tokio}/mod.rs` and `edger.rs` no more", 1),
            ("docs/design/budget.md", "`guest.rs` beside `ledger.rs`", 1),
            ("docs/design/tokio-hooks.md", "`runtime/task/core.rs`", 0),
            ("README.md", "guest.rs, and ```\nfn main.rs\n```", 0),
        ] {
            let files = [file("agent/src/budget/ledger.rs", ""), file(document, text)];
            assert_eq!(check(&files).len(), expected, "{text}");
        }
    }
}
