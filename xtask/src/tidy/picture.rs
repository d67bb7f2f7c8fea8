//! The picture in ARCHITECTURE.md and the source folders: what it names exists, and each folder is in it.

use std::collections::BTreeSet;

use super::File;

const PAGE: &str = "ARCHITECTURE.md";

/// Folders whose own folders all stand in the picture, each as a subgraph of this name.
const ROOTS: &[&str] = &["agent/src", "agent-ebpf/src", "agent-common/src"];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let drawn = drawn(&page.text);
    let exists = |path: &str| paths.contains(path) || path.ends_with('/') && paths.iter().any(|p| p.starts_with(path));
    let gone = drawn
        .iter()
        .filter(|path| !exists(path))
        .map(|path| format!("{PAGE}: the picture names {path}, which does not exist"));
    let missing = folders(&paths)
        .into_iter()
        .filter(|folder| !drawn.contains(folder))
        .map(|folder| format!("{PAGE}: the picture lacks {folder}"));
    gone.chain(missing).collect()
}

/// Folders directly below the roots.
fn folders(paths: &BTreeSet<&str>) -> BTreeSet<String> {
    let below = |root: &str| -> Vec<String> {
        let root = format!("{root}/");
        let inside = paths.iter().filter_map(|path| path.strip_prefix(root.as_str()));
        let firsts = inside.filter_map(|path| path.split_once('/'));
        firsts.map(|(first, _)| format!("{root}{first}/")).collect()
    };
    ROOTS.iter().flat_map(|root| below(root)).collect()
}

/// Paths that the mermaid picture names: in the subgraph of a root, the words that end as a folder or a source file does.
fn drawn(page: &str) -> BTreeSet<String> {
    let mut drawn = BTreeSet::new();
    let mut root = None;
    let picture = page.lines().skip_while(|line| *line != "```mermaid").skip(1);
    for line in picture.take_while(|line| *line != "```") {
        let text = line.replace("<br/>", " ");
        let mut words = text.split(|c: char| c.is_whitespace() || "[](){}|\",".contains(c));
        if line.trim_start().starts_with("subgraph") {
            root = words.find_map(|word| ROOTS.iter().find(|root| **root == word));
        } else if line.trim() == "end" {
            root = None;
        } else if let Some(root) = root {
            let named = words.filter(|word| word.ends_with('/') || word.ends_with(".rs"));
            drawn.extend(named.map(|word| format!("{root}/{word}")));
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: &str = "text\n```mermaid\nflowchart TB\n    subgraph ebpf[\"agent-ebpf/src\"]\n        a[\"go/ maps.rs<br/>probes\"]\n    end\n    \
                           subgraph agent[\"agent/src\"]\n        b[\"attach/\"]\n        c[\"export/<br/>OTLP\"]\n    end\n    a -->|\"and/or\"| b\n```\n";

    #[track_caller]
    fn check_tree(page: &str, paths: &[&str], expected: &[&str]) {
        let file = |(path, text): (&str, &str)| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let sources = paths.iter().map(|path| (*path, ""));
        let files: Vec<File> = sources.chain([(PAGE, page)]).map(file).collect();
        assert_eq!(check(&files), expected);
    }

    const TREE: &[&str] = &[
        "agent-ebpf/src/go/sched.rs",
        "agent-ebpf/src/maps.rs",
        "agent/src/attach/mod.rs",
        "agent/src/export/otlp/mod.rs",
        "agent/src/lib.rs",
        "xtask/src/tidy/mod.rs",
    ];

    #[test]
    fn a_picture_of_all_folders() {
        check_tree(PICTURE, TREE, &[]);
    }

    #[test]
    fn a_folder_that_is_not_drawn() {
        let tree = [TREE, &["agent/src/intake/mod.rs", "agent-common/src/go/mod.rs"]].concat();
        let expected = [
            "ARCHITECTURE.md: the picture lacks agent-common/src/go/",
            "ARCHITECTURE.md: the picture lacks agent/src/intake/",
        ];
        check_tree(PICTURE, &tree, &expected);
    }

    #[test]
    fn what_is_drawn_and_gone() {
        let expected = [
            "ARCHITECTURE.md: the picture names agent-ebpf/src/maps.rs, which does not exist",
            "ARCHITECTURE.md: the picture names agent/src/export/, which does not exist",
        ];
        check_tree(
            PICTURE,
            &["agent-ebpf/src/go/mod.rs", "agent/src/attach/mod.rs"],
            &expected,
        );
    }

    #[test]
    fn a_page_without_a_picture() {
        check_tree(
            "text",
            &["agent/src/attach/mod.rs"],
            &["ARCHITECTURE.md: the picture lacks agent/src/attach/"],
        );
    }
}
