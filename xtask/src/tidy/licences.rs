//! Licences and duplicate dependencies, by deny.toml: cargo-deny reads it when it is installed, and this does, always,
//! from `cargo metadata`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::File;
use crate::sh;

/// What each crate of the workspace is licensed under: the kernel must be able to take its part as GPL.
const OURS: &str = "Apache-2.0 OR MIT";
const KERNEL_SIDE: (&str, &str) = ("agent-ebpf", "MIT OR GPL-2.0-only");

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for the workspace's own crates.
    source: Option<String>,
}

/// Complaints, and which tools were asked.
pub(super) fn check(files: &[File]) -> Result<(Vec<String>, String)> {
    let text = &files
        .iter()
        .find(|file| file.path == "deny.toml")
        .context("no deny.toml")?
        .text;
    let deny: Deny = toml::from_str(text).context("deny.toml")?;
    let platform = format!("--filter-platform={}", sh::STATIC_TARGET);
    let json = sh::capture(&mut sh::cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        &platform,
    ]))?;
    let Metadata { packages } = serde_json::from_str(&json).context("cargo metadata")?;

    let allow: Vec<&str> = deny.licenses.allow.iter().map(String::as_str).collect();
    let mut complaints: Vec<String> = packages.iter().filter_map(|package| licence(package, &allow)).collect();
    let skip: Vec<&str> = deny.bans.skip.iter().map(|skip| skip.name.as_str()).collect();
    complaints.extend(duplicates(&packages, &skip));

    if sh::which("cargo-deny").is_none() {
        return Ok((
            complaints,
            "licences and duplicates by cargo metadata (cargo-deny is not installed)".to_owned(),
        ));
    }
    let mut deny = sh::cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]);
    if let Err(why) = sh::capture(&mut deny) {
        complaints.push(format!("{why:#}"));
    }
    Ok((
        complaints,
        "licences and duplicates by cargo metadata and cargo-deny".to_owned(),
    ))
}

fn licence(package: &Package, allow: &[&str]) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    let Some(licence) = &package.license else {
        return Some(format!("{name} names no licence"));
    };
    if package.source.is_none() {
        let expected = if package.name == KERNEL_SIDE.0 {
            KERNEL_SIDE.1
        } else {
            OURS
        };
        return (licence != expected).then(|| format!("{name} is under `{licence}`, and should be under `{expected}`"));
    }
    (!satisfied(licence, allow)).then(|| format!("{name} is under `{licence}`, which deny.toml does not allow"))
}

/// True when some choice in an SPDX expression is allowed. `/` is an old way to write OR.
fn satisfied(expression: &str, allow: &[&str]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ")
        .replace(" WITH ", "-WITH-");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allow) && rest.is_empty()
}

fn either(rest: &mut &[&str], allow: &[&str]) -> bool {
    let mut value = both(rest, allow);
    while let Some((&"OR", after)) = rest.split_first() {
        *rest = after;
        value |= both(rest, allow);
    }
    value
}

fn both(rest: &mut &[&str], allow: &[&str]) -> bool {
    let mut value = one(rest, allow);
    while let Some((&"AND", after)) = rest.split_first() {
        *rest = after;
        value &= one(rest, allow);
    }
    value
}

fn one(rest: &mut &[&str], allow: &[&str]) -> bool {
    let Some((word, after)) = rest.split_first() else {
        return false;
    };
    *rest = after;
    if *word != "(" {
        return allow.iter().any(|allowed| allowed.replace(" WITH ", "-WITH-") == *word);
    }
    let value = either(rest, allow);
    *rest = rest.strip_prefix(&[")"]).unwrap_or(rest);
    value
}

/// Crates that come in more than one version and are not listed.
fn duplicates(packages: &[Package], skip: &[&str]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let twice = versions
        .into_iter()
        .filter(|(name, versions)| versions.len() > 1 && !skip.contains(name));
    twice
        .map(|(name, versions)| {
            format!(
                "{name} comes in {}: unify it, or list it in deny.toml with a reason",
                versions.join(" and ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spdx_expressions() {
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT )", false),
        ] {
            let allow = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
            assert_eq!(satisfied(expression, &allow), expected, "{expression}");
        }
    }

    fn package(name: &str, version: &str, license: &str, ours: bool) -> Package {
        let source = (!ours).then(|| "registry".to_owned());
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(license.to_owned()),
            source,
        }
    }

    #[test]
    fn our_own_licences_are_exact() {
        assert_eq!(licence(&package("agent", "0.1.0", OURS, true), &[]), None);
        assert_eq!(
            licence(&package("agent-ebpf", "0.1.0", "MIT OR GPL-2.0-only", true), &[]),
            None
        );
        assert!(licence(&package("agent-ebpf", "0.1.0", OURS, true), &[]).is_some());
    }

    #[test]
    fn two_versions_need_a_reason() {
        let packages = [package("a", "1.0.0", "MIT", false), package("a", "2.0.0", "MIT", false)];
        assert_eq!(duplicates(&packages, &[]).len(), 1);
        assert_eq!(duplicates(&packages, &["a"]).len(), 0);
    }
}
