//! Words that may not be committed: what only one machine has, and what is not done yet.

use super::File;

/// The word, cut in two so that this file passes its own check, and what is wrong with it.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
    ("artif", "actory", "a registry of one network"),
    ("tod", "o!(", "unfinished code"),
    ("unimple", "mented!(", "unfinished code"),
    ("FIX", "ME", "unfinished code"),
];

/// Where a word is meant, and why.
const MEANT: &[(&str, &str, &str, &str)] = &[
    (
        "agent/src/",
        "/ro",
        "ot/",
        "the mount namespace of a target, below its folder in /proc",
    ),
    (
        "agent/tests/",
        "/ro",
        "ot/",
        "the mount namespace of a target, below its folder in /proc",
    ),
];

pub(super) fn check(files: &[File]) -> Vec<String> {
    files.iter().flat_map(complaints).collect()
}

fn complaints(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for (head, tail, wrong) in FORBIDDEN {
            let word = format!("{head}{tail}");
            if path_start(line, &word) && !meant(&file.path, &word) {
                found.push(format!("{}:{}: `{word}` is {wrong}", file.path, at + 1));
            }
        }
    }
    found
}

/// The word stands in the line; a path only where it begins, so that /usr/lib/x/home and /proc/1/root pass.
fn path_start(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !word.starts_with('/') || !before.is_some_and(|c| c.is_alphanumeric() || "}])>_.*".contains(c))
    })
}

fn meant(path: &str, word: &str) -> bool {
    MEANT
        .iter()
        .any(|(prefix, head, tail, _)| path.starts_with(prefix) && format!("{head}{tail}") == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_line(path: &str, line: String, expected: usize) {
        let file = File {
            path: path.to_owned(),
            text: line.clone(),
        };
        assert_eq!(complaints(&file).len(), expected, "{line}");
    }

    #[test]
    fn machine_paths_only_where_they_begin() {
        check_line("a.md", format!("see {}{}x", "/wo", "rk/"), 1);
        check_line("a.rs", format!("/proc/{{pid}}{}{}x", "/ro", "ot/"), 0);
        check_line("a.rs", format!("net{}{}", "/wo", "rk/"), 0);
        check_line("agent/src/x.rs", format!("\"{}{}\"", "/ro", "ot/"), 0);
    }

    #[test]
    fn unfinished_code() {
        check_line("a.rs", format!("{}{})", "tod", "o!("), 1);
        check_line("a.rs", format!("// {}{}: later", "FIX", "ME"), 1);
    }
}
