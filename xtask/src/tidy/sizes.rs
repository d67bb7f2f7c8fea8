//! File sizes: a long file does too much, or says here why not.

use super::File;

const LIMIT: usize = 400;
const KERNEL_LIMIT: usize = 200;

/// Files that may be longer, and why.
const LONGER: &[(&str, &str)] = &[
    (
        "agent/src/inspect/go/offsets.rs",
        "one table: the fields of the Go runtime's types",
    ),
    ("agent/tests/bad_input.rs", "a case beside the other, each whole"),
    (
        "agent/tests/e2e_net.rs",
        "a figure beside the other, each with its own account",
    ),
    (
        "agent/tests/inspect_go.rs",
        "one matrix: builds of Go against every fact that is read of them",
    ),
];

pub(super) fn check(files: &[File]) -> Vec<String> {
    files.iter().filter_map(complaint).collect()
}

fn complaint(file: &File) -> Option<String> {
    let limit = if file.path.starts_with("agent-ebpf/") {
        KERNEL_LIMIT
    } else {
        LIMIT
    };
    let lines = file.text.lines().count();
    let excused = LONGER.iter().any(|(path, _)| *path == file.path);
    (file.path.ends_with(".rs") && lines > limit && !excused).then(|| {
        format!(
            "{} has {lines} lines, more than {limit}: split it, or list it with a reason",
            file.path
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, lines: usize, expected: bool) {
        let file = File {
            path: path.to_owned(),
            text: "x\n".repeat(lines),
        };
        assert_eq!(complaint(&file).is_some(), expected, "{path} {lines}");
    }

    #[test]
    fn limits_differ_by_crate() {
        check("agent/src/main.rs", 400, false);
        check("agent/src/main.rs", 401, true);
        check("agent-ebpf/src/main.rs", 201, true);
        check("agent-ebpf/src/main.rs", 200, false);
        check("docs/long.md", 5000, false);
    }
}
