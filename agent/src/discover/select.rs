//! Which processes the user asked for.

use std::path::Path;

use glob::Pattern;

use super::Process;

/// The user's choice; empty means every Go or tokio process that can be recognised.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    pub pids: Vec<u32>,
    /// Globs on the executable's path, or on its file name when they hold no slash.
    pub exes: Vec<Pattern>,
    /// The kernel's name of the process, or its executable's file name.
    pub names: Vec<String>,
}

impl Selector {
    /// Whether the user named anything.
    pub fn is_explicit(&self) -> bool {
        !(self.pids.is_empty() && self.exes.is_empty() && self.names.is_empty())
    }

    /// Whether the user named this process, or named nothing.
    pub fn matches(&self, process: &Process) -> bool {
        if !self.is_explicit() {
            return true;
        }
        let path = process.exe.to_string_lossy();
        let path = path.trim_end_matches(" (deleted)");
        let file = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
        self.pids.contains(&process.pid)
            || self.names.iter().any(|name| *name == process.name || *name == file)
            || self
                .exes
                .iter()
                .any(|glob| glob.matches(if glob.as_str().contains('/') { path } else { &file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::process;

    fn check(selector: &Selector, exe: &str, name: &str, expected: bool) {
        let process = Process {
            pid: 7,
            start: 1,
            exe: exe.into(),
            name: name.to_owned(),
            program: None,
            root: process::proc(),
        };
        assert_eq!(selector.matches(&process), expected, "{exe} {name}");
    }

    #[test]
    fn nothing_named_is_everything() {
        check(&Selector::default(), "/bin/x", "x", true);
    }

    #[test]
    fn each_way_of_naming_picks_its_own() {
        let exe = |glob: &str| Selector {
            exes: vec![Pattern::new(glob).unwrap()],
            ..Selector::default()
        };
        check(&exe("shop*"), "/srv/shop-api", "whatever", true);
        check(&exe("shop*"), "/shop/other", "other", false);
        check(&exe("/srv/*/shop"), "/srv/v2/shop (deleted)", "shop", true);
        let name = Selector {
            names: vec!["shop".to_owned()],
            ..Selector::default()
        };
        check(&name, "/srv/a-long-binary-name", "shop", true);
        check(&name, "/srv/shop", "main", true);
        check(&name, "/srv/shopping", "shopping", false);
        let pid = Selector {
            pids: vec![7],
            ..Selector::default()
        };
        check(&pid, "/x", "x", true);
        check(
            &Selector {
                pids: vec![8],
                ..Selector::default()
            },
            "/x",
            "x",
            false,
        );
    }
}
