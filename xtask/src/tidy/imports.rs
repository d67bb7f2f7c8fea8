//! Who may know whom: the modules of the agent, folders and files of `agent/src`, and what each imports from the others.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::File;

pub(super) const AGENT: &str = "agent/src/";

/// The data's way, but for `inspect`, which knows less, and `signals`.
const STAGES: &[&str] = &[
    "aggregate",
    "attach",
    "budget",
    "discover",
    "enrich",
    "export",
    "intake",
    "overhead",
    "runtime",
];

const NO_NAMES: &str = "it knows no signal by name";

/// What some modules may not import, and why.
const FORBIDDEN: &[(&[&str], &[&str], &str)] = &[
    (
        &["inspect"],
        &[
            "attach",
            "budget",
            "lifecycle",
            "overhead",
            "runtime",
            "signal",
            "signals",
            "target",
            "watch",
            "pipeline",
        ],
        "it reads bytes and knows nothing above it",
    ),
    (STAGES, &["signals"], NO_NAMES),
    (&["model", "signal", "telemetry"], &["signals"], NO_NAMES),
    (
        STAGES,
        &[
            "findings",
            "lifecycle",
            "target",
            "watch",
            "surface",
            "pipeline",
            "commands",
        ],
        "it is a stage: what it works on is given to it",
    ),
    (
        &["lifecycle"],
        &[
            "aggregate",
            "attach",
            "budget",
            "overhead",
            "runtime",
            "signal",
            "signals",
            "target",
            "watch",
            "pipeline",
        ],
        "it decides by /proc and executables, and its targets are behind a trait",
    ),
    (
        &["budget"],
        &["attach", "bpf", "kernel", "overhead"],
        "it decides; others measure, attach and detach",
    ),
    (
        &["target"],
        &[
            "aggregate",
            "attach",
            "budget",
            "overhead",
            "capacity",
            "lifecycle",
            "signal",
            "signals",
            "watch",
            "pipeline",
        ],
        "it is who a process is, and nothing that is done with it",
    ),
    (
        &["signals"],
        &["budget", "lifecycle", "overhead", "watch", "pipeline"],
        "what a signal means does not depend on when it is seen",
    ),
    (
        &["findings"],
        &[
            "attach",
            "budget",
            "export",
            "intake",
            "lifecycle",
            "overhead",
            "watch",
            "surface",
            "pipeline",
        ],
        "a rule is judged by facts, which are given to it",
    ),
    (
        &["signals"],
        &["findings"],
        "a finding is made of what signals know, and not the other way round",
    ),
];

/// Module → module that it imports → a file that does.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let graph = graph(files, &mut complaints);
    for (modules, others, why) in FORBIDDEN {
        for module in *modules {
            for (other, file) in graph.get(*module).into_iter().flatten() {
                if others.contains(&other.as_str()) {
                    complaints.push(format!("{file} imports `{other}`: `{module}` may not, {why}"));
                }
            }
        }
    }
    let of = |circle: &Vec<String>| format!("modules that import each other: {}", circle.join(", "));
    complaints.extend(circles(&graph).iter().map(of));
    complaints
}

fn graph(files: &[File], complaints: &mut Vec<String>) -> Graph {
    let sources: Vec<(&str, &File)> = sources(files).collect();
    let modules: BTreeSet<&str> = sources.iter().map(|(path, _)| module(path)).collect();
    let mut graph = Graph::new();
    for (path, file) in sources {
        let parsed = match without_tests(&file.text) {
            Ok(parsed) => parsed,
            Err(error) => {
                complaints.push(format!("{} cannot be parsed: {error}", file.path));
                continue;
            }
        };
        let mut imports = Imports::default();
        imports.visit_file(&parsed);
        let own = module(path);
        // What wires all of them, and declares them.
        if ["lib", "main"].contains(&own) {
            continue;
        }
        let of_module = graph.entry(own.to_owned()).or_default();
        for other in imports.found.iter().filter(|other| modules.contains(other.as_str())) {
            if other != own {
                of_module.entry(other.clone()).or_insert_with(|| file.path.clone());
            }
        }
    }
    graph
}

/// The agent's own code: each file that is not for tests, by its path below `agent/src`.
pub(super) fn sources(files: &[File]) -> impl Iterator<Item = (&str, &File)> {
    let below = files
        .iter()
        .filter_map(|file| Some((file.path.strip_prefix(AGENT)?, file)));
    below.filter(|(path, _)| path.ends_with(".rs") && !is_test(path))
}

/// Parses a file and leaves out its modules that are for tests.
pub(super) fn without_tests(text: &str) -> syn::Result<syn::File> {
    fn leave_out(items: &mut Vec<syn::Item>) {
        items.retain(|item| !matches!(item, syn::Item::Mod(module) if module.attrs.iter().any(is_for_tests)));
        for item in items {
            if let syn::Item::Mod(module) = item
                && let Some((_, items)) = &mut module.content
            {
                leave_out(items);
            }
        }
    }
    let mut parsed = syn::parse_file(text)?;
    leave_out(&mut parsed.items);
    Ok(parsed)
}

/// The module of `agent/src` that a file below it belongs to.
fn module(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or_default();
    first.trim_end_matches(".rs")
}

/// Whether a file is compiled for tests only, by its name.
fn is_test(path: &str) -> bool {
    path.trim_end_matches(".rs")
        .split('/')
        .any(|part| part == "tests" || part.ends_with("_tests"))
}

/// Whether what has this attribute is compiled for tests only.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let list = attribute.meta.require_list();
    attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
}

/// First names behind `crate::`.
#[derive(Default)]
struct Imports {
    found: BTreeSet<String>,
}

impl Imports {
    fn note_tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                self.found.insert(path.ident.to_string());
            }
            syn::UseTree::Name(name) => {
                self.found.insert(name.ident.to_string());
            }
            syn::UseTree::Rename(rename) => {
                self.found.insert(rename.ident.to_string());
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(tree);
                }
            }
            syn::UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if let syn::UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.note_tree(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(second) = segments.next()
        {
            self.found.insert(second.ident.to_string());
        }
        visit::visit_path(self, path);
    }
}

/// Modules that reach each other, two and more.
fn circles(graph: &Graph) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|module| (module.as_str(), reached(graph, module)))
        .collect();
    let of = |module: &str| -> Vec<String> {
        let with = reach[module].iter().filter(|other| {
            let back = reach.get(*other).is_some_and(|reached| reached.contains(module));
            back || **other == module
        });
        with.map(ToString::to_string).collect()
    };
    let circles = graph.keys().map(|module| of(module));
    circles.filter(|circle| circle.len() > 1).collect()
}

/// All modules that one imports, and those that they import.
fn reached<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for other in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(other.as_str()) {
                open.push(other);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let files: Vec<File> = files
            .iter()
            .map(|(path, text)| File {
                path: format!("{AGENT}{path}"),
                text: (*text).to_owned(),
            })
            .collect();
        assert_eq!(check(&files), expected);
    }

    #[test]
    fn an_import_that_a_rule_forbids() {
        let signals = ("signals/mod.rs", "");
        let expected = ["agent/src/attach/uprobe.rs imports `signals`: `attach` may not, it knows no signal by name"];
        for text in [
            "use crate::signals;",
            "use crate::signals::go;",
            "use crate::{inspect, signals::{go, tokio}};",
            "use crate::signals as named;",
            "fn name() -> &'static str { crate::signals::NAMES[0] }",
            "mod inner { fn of(plan: &crate::signals::Plan) {} }",
        ] {
            check_files(&[signals, ("attach/uprobe.rs", text)], &expected);
        }
    }

    #[test]
    fn tests_and_comments_may_name_everything() {
        let signals = ("signals/mod.rs", "");
        for file in [
            ("attach/uprobe.rs", "#[cfg(test)] mod tests { use crate::signals; }"),
            ("attach/uprobe.rs", "// crate::signals\nuse std::signals;"),
            ("attach/tests.rs", "use crate::signals;"),
            ("attach/object_tests.rs", "use crate::signals;"),
        ] {
            check_files(&[signals, file], &[]);
        }
    }

    #[test]
    fn a_circle_of_some() {
        check_files(
            &[
                ("cli.rs", "use crate::exit;"),
                ("exit.rs", "use crate::health;"),
                ("health.rs", "use crate::cli;"),
                ("output.rs", "use crate::cli;"),
            ],
            &["modules that import each other: cli, exit, health"],
        );
    }

    #[test]
    fn a_target_knows_none_of_its_signals() {
        let (signals, target) = (
            ("signals/mod.rs", "use crate::target;"),
            ("target.rs", "use crate::signals;"),
        );
        check_files(
            &[("lib.rs", ""), signals, target],
            &[
                "agent/src/target.rs imports `signals`: `target` may not, it is who a process is, and nothing that is done with it",
                "modules that import each other: signals, target",
            ],
        );
        check_files(&[signals, ("target.rs", "")], &[]);
    }

    #[test]
    fn the_life_cycle_knows_its_targets_by_a_trait_only() {
        let (lifecycle, watch) = (
            ("lifecycle/mod.rs", "use crate::discover::Process;"),
            ("watch/mod.rs", "use crate::lifecycle::Targets;"),
        );
        check_files(&[("discover/mod.rs", ""), lifecycle, watch], &[]);
        check_files(
            &[
                ("discover/mod.rs", "use crate::lifecycle;"),
                ("lifecycle/mod.rs", "use crate::watch;"),
                ("watch/mod.rs", ""),
            ],
            &[
                "agent/src/discover/mod.rs imports `lifecycle`: `discover` may not, it is a stage: what it works on is given to it",
                "agent/src/lifecycle/mod.rs imports `watch`: `lifecycle` may not, it decides by /proc and executables, and its targets are behind a trait",
            ],
        );
    }

    #[test]
    fn what_cannot_be_parsed_is_named() {
        let complaints = check(&[File {
            path: "agent/src/cli.rs".to_owned(),
            text: "fn".to_owned(),
        }]);
        assert!(
            complaints[0].starts_with("agent/src/cli.rs cannot be parsed"),
            "{complaints:?}"
        );
    }
}
