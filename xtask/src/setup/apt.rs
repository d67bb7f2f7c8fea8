//! Questions to the system's package manager.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Result, bail};

use crate::sh;

pub(crate) fn get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    command
}

/// The packages whose names match, with the version apt would install.
pub(crate) fn candidates(pattern: &str) -> Result<BTreeMap<String, String>> {
    if sh::which("apt-cache").is_none() {
        bail!(
            "no apt here: this knows only Debian and Ubuntu; install rustup's nightly with rust-src, bpf-linker and Go by hand"
        );
    }
    let found = sh::capture(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    let names: Vec<&str> = found.lines().filter_map(|line| line.split(' ').next()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(parse_policy(&sh::capture(
        Command::new("apt-cache").arg("policy").args(&names),
    )?))
}

/// Reads `apt-cache policy`: a line `name:` and below it `  Candidate: version`.
fn parse_policy(text: &str) -> BTreeMap<String, String> {
    let mut name = "";
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            name = line.trim_end_matches(':');
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            found.insert(name.to_owned(), version.to_owned());
        }
    }
    found
}

pub(crate) fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    sh::capture(query.args(["--show", "--showformat=${Status}", package]))
        .is_ok_and(|status| status == "install ok installed")
}

/// Major and minor of a version such as `1.96.0+dfsg1-1~deb12u2` or `1:22.1.8-1`.
pub(crate) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_without_a_candidate_is_left_out() {
        let text = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n     1.96.0+dfsg1-1 500\ngone:\n  Installed: (none)\n  Candidate: (none)\n";
        let expected = BTreeMap::from([("rustc-web".to_owned(), "1.96.0+dfsg1-1".to_owned())]);
        assert_eq!(parse_policy(text), expected);
    }

    #[test]
    fn versions_with_epoch_and_suffix() {
        for (version, expected) in [
            ("1.96.0+dfsg1-1~deb12u2", Some((1, 96))),
            ("1:22.1.8-1", Some((22, 1))),
            ("2:1.24~2", Some((1, 24))),
            ("none", None),
        ] {
            assert_eq!(major_minor(version), expected, "{version}");
        }
    }
}
