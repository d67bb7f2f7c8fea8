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

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, file) in sources(files) {
        // One that cannot be parsed is told by who looks at imports.
        let Ok(parsed) = without_tests(&file.text) else {
            continue;
        };
        let mut names = Names::default();
        names.visit_file(&parsed);
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
            &["agent/src/surface/summary.rs names `GoImage`"],
        );
        check_file(
            "watch/planner.rs",
            "use crate::inspect::{Image, TokioImage};",
            &["agent/src/watch/planner.rs names `TokioImage`"],
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
