//! Who may ask which runtime an executable is of: each runtime's own modules, and the rows by which they are found. All others have what
//! they need by the traits `inspect::Image` and `signals::runtimes::Runtime`.

use std::collections::BTreeSet;

use syn::visit::Visit;

use super::{
    File,
    imports::{sources, without_tests},
};

/// A runtime's own type, and where it may be named, below `agent/src`; a folder by its trailing slash.
const OWN: &[(&str, &[&str])] = &[
    (
        "GoImage",
        &[
            "inspect/go/",
            "inspect/mod.rs",
            "commands/stacks.rs",
            "runtime/go/",
            "signals/go/",
            "signals/runtimes.rs",
        ],
    ),
    (
        "TokioImage",
        &[
            "inspect/tokio/",
            "inspect/mod.rs",
            "signals/tokio/",
            "signals/runtimes.rs",
        ],
    ),
];

const LIST: &str = "xtask/src/tidy/runtimes.rs";

/// Each runtime's own modules, below `agent/src`.
const MODULES: &[&str] = &[
    "commands/goroutines.rs",
    "commands/profile.rs",
    "commands/profile/",
    "commands/stacks.rs",
    "findings/go/",
    "inspect/go/",
    "inspect/tokio/",
    "runtime/go/",
    "signals/go/",
    "signals/tokio/",
    "telemetry/go/",
    "telemetry/tokio/",
];

/// Other files in which a thing of one runtime has a name, and why.
const OTHERS: &[(&str, &str)] = &[
    ("attach/maps.rs", "opens the kernel side's maps, each a type of its own"),
    (
        "attach/maps/sweep.rs",
        "removes entries of the kernel side's maps, each a type of its own",
    ),
    (
        "attach/plan.rs",
        "a plan has what the kernel side's Target has: a part of each runtime",
    ),
    ("cli.rs", "the arguments of `whywait goroutines`"),
    (
        "collect.rs",
        "GC cycles have a limit of their own within that of all spans",
    ),
    ("commands/mod.rs", "declares the commands, one of which is `goroutines`"),
    (
        "export/otlp/http.rs",
        "hyper's executor for the async runtime of the agent itself",
    ),
    ("findings/change.rs", "what is known of each runtime at two readings"),
    ("findings/facts.rs", "what is known of each runtime at a reading"),
    ("findings/mod.rs", "rows of rules"),
    ("inspect/arch.rs", "registers of Go's calling convention, by machine"),
    (
        "inspect/elf.rs",
        "the note and the sections by which a Go binary is recognised",
    ),
    ("inspect/mod.rs", "rows of runtimes"),
    ("inspect/readers.rs", "rows of the readers that are fuzzed"),
    ("inspect/readers/seed.rs", "seeds of the fuzzers, of each reader"),
    ("intake/mod.rs", "rows of events"),
    (
        "recording/write.rs",
        "names in the target's code, as its symbols have them",
    ),
    ("main.rs", "runs the commands, one of which is `goroutines`"),
    ("runtime/mod.rs", "declares the modules"),
    ("signals/mod.rs", "rows of signals"),
    ("signals/net/mod.rs", "who sent or read: a goroutine or a task"),
    ("signals/runtimes.rs", "rows of runtimes"),
    ("signals/state.rs", "what each signal keeps"),
    ("signals/thread/syscall.rs", "who called: a goroutine"),
    (
        "target/symbols.rs",
        "names in the target's code: of goroutines' functions, of frames",
    ),
    ("telemetry/mod.rs", "attributes that several signals of a runtime have"),
    ("telemetry/net/mod.rs", "who connected: a goroutine or a task"),
    ("telemetry/net/request.rs", "who sent or read: a goroutine or a task"),
    ("telemetry/thread/syscall.rs", "who called: a goroutine"),
];

/// Whether an identifier is of a thing of one runtime. `tokio` alone is the crate that the agent itself uses.
fn is_of_a_runtime(name: &str) -> bool {
    let word = name.to_lowercase();
    let begins = |prefix: &str| {
        let rest = name.strip_prefix(prefix).unwrap_or_default();
        rest.starts_with(|next: char| next.is_ascii_uppercase())
    };
    word == "go"
        || word.starts_with("goroutine")
        || word.starts_with("go_")
        || word.starts_with("tokio_")
        || begins("Go")
        || begins("Tokio")
}

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, file) in sources(files) {
        // One that cannot be parsed is told by who looks at imports.
        let Ok(parsed) = without_tests(&file.text) else {
            continue;
        };
        let mut names = Names::default();
        names.visit_file(&parsed);
        let names_one = names.found.iter().find(|name| is_of_a_runtime(name));
        let is_listed = OTHERS.iter().any(|(listed, _)| *listed == path);
        let is_module = MODULES.iter().any(|module| path.starts_with(module));
        match names_one {
            Some(name) if !is_listed && !is_module => complaints.push(format!(
                "{} has `{name}`, of one runtime: put it into a module of that runtime, behind the signals' table or a trait, or give a reason in {LIST}",
                file.path
            )),
            None if is_listed => complaints.push(format!("{} names no runtime any more: its row in {LIST} can go", file.path)),
            _ => {}
        }
        let is_own = |own: &[&str]| {
            let mut own = own.iter();
            own.any(|own| path == *own || own.ends_with('/') && path.starts_with(own))
        };
        let strange = OWN
            .iter()
            .filter(|(name, own)| names.found.contains(*name) && !is_own(own));
        complaints.extend(strange.map(|(name, _)| {
            format!(
                "{} names `{name}`: only that runtime's own modules may, others ask by the traits of all runtimes",
                file.path
            )
        }));
    }
    complaints
}

/// Every name in a file, but for those in its tests.
#[derive(Default)]
struct Names {
    found: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_ident(&mut self, ident: &'ast syn::Ident) {
        self.found.insert(ident.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::{super::imports::AGENT, *};

    #[track_caller]
    fn check_file(path: &str, text: &str, expected: &[&str]) {
        let complaints = check(&[File {
            path: format!("{AGENT}{path}"),
            text: text.to_owned(),
        }]);
        let short: Vec<&str> = complaints.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(short, expected, "{path}: {text}");
    }

    #[test]
    fn a_runtime_is_named_by_its_own_modules_only() {
        let by_type = "fn is(image: &dyn Image) -> bool { image.downcast_ref::<GoImage>().is_some() }";
        check_file(
            "surface/summary.rs",
            by_type,
            &[
                "agent/src/surface/summary.rs has `GoImage`, of one runtime",
                "agent/src/surface/summary.rs names `GoImage`",
            ],
        );
        check_file(
            "watch/planner.rs",
            "use crate::inspect::{Image, TokioImage};",
            &[
                "agent/src/watch/planner.rs has `TokioImage`, of one runtime",
                "agent/src/watch/planner.rs names `TokioImage`",
            ],
        );
        check_file(
            "signals/tokio/poll.rs",
            by_type,
            &["agent/src/signals/tokio/poll.rs names `GoImage`"],
        );
        for own in ["inspect/go/mod.rs", "runtime/go/proof.rs", "signals/runtimes.rs"] {
            check_file(own, by_type, &[]);
        }
    }

    #[test]
    fn a_thing_of_one_runtime_elsewhere_needs_a_reason() {
        let texts = [
            "fn of(kind: Series) -> bool { kind == Series::GoRunnable }",
            "use crate::signals::go::sched;",
            "use agent_common::go;",
            "fn of() { tokio_types() }",
            "struct Row { goroutines: u64 }",
        ];
        for text in texts {
            check_file(
                "surface/summary.rs",
                text,
                &["agent/src/surface/summary.rs has `".to_owned() + first(text) + "`, of one runtime"]
                    .each_ref()
                    .map(String::as_str),
            );
            check_file("signals/go/sched.rs", text, &[]);
            check_file("collect.rs", text, &[]);
        }
        check_file(
            "surface/summary.rs",
            "use tokio::time; fn goal() -> Gone { gone() }",
            &[],
        );
        check_file(
            "collect.rs",
            "fn of() {}",
            &["agent/src/collect.rs names no runtime any more"],
        );
    }

    fn first(text: &str) -> &str {
        let mut words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.find(|word| is_of_a_runtime(word)).unwrap()
    }

    #[test]
    fn tests_and_comments_may_name_all() {
        check_file(
            "surface/summary.rs",
            "#[cfg(test)] mod tests { use crate::inspect::GoImage; }",
            &[],
        );
        check_file("surface/summary.rs", "// GoImage", &[]);
        check_file("signals/plan/tests.rs", "use crate::inspect::GoImage;", &[]);
    }
}
