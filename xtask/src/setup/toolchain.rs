//! The Rust toolchain that compiles agent-ebpf: it needs `core`'s sources (`-Z build-std`).
//!
//! In order of preference: what is there already (a nightly, or a linked distribution toolchain called `bpf`), what
//! rustup can fetch (the sources that a nightly lacks, else one nightly of a known date), what the distribution
//! packages. Only those whose LLVM bpf-linker can read count: nightlies move on sooner than it does. The answer is kept
//! in target/xtask/toolchain.json, which agent/build.rs reads, and asked for anew when the workspace's own rustc changes.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{apt, linker};
use crate::{progress, sh};

/// The name under which the distribution's toolchain is linked into rustup.
const LINKED: &str = "bpf";
const NIGHTLY: &str = "nightly";
/// The nightly that is fetched where none serves: rustc 1.97 of LLVM 22.
const PINNED: &str = "nightly-2026-05-20";
/// The workspace's rust-version, which agent-ebpf shares.
const OLDEST: (u32, u32) = (1, 95);
/// rustup gives up on a stalled download after this many seconds; a slow one that moves goes on up to the limit.
const STALL_SECONDS: &str = "10";
const NIGHTLY_LIMIT: Duration = Duration::from_secs(300);

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Toolchain {
    /// `rustc --version` of the workspace's toolchain, the key of this answer.
    key: String,
    /// Its name in rustup; empty while only the refusal is known.
    pub(crate) name: String,
    /// Stable compilers need RUSTC_BOOTSTRAP=1 to take `-Z build-std`.
    pub(crate) bootstrap: bool,
    /// Major version of the LLVM whose bitcode it writes.
    pub(crate) llvm: u32,
    pub(super) sysroot: String,
    /// Why rustup could not fetch a nightly, if it was tried.
    refused: Option<String>,
}

/// What `choose` decided on; `complete` makes it real.
pub(crate) enum Choice {
    Present(Toolchain),
    Distribution {
        packages: Vec<String>,
        sysroot: String,
        llvm: u32,
        key: String,
        refused: String,
    },
}

impl Choice {
    pub(crate) fn missing_packages(&self) -> Result<Vec<String>> {
        Ok(match self {
            Self::Present(_) => Vec::new(),
            Self::Distribution { packages, .. } => {
                packages.iter().filter(|name| !apt::installed(name)).cloned().collect()
            }
        })
    }

    /// The LLVM that bpf-linker must be able to read.
    pub(crate) fn llvm(&self) -> u32 {
        match self {
            Self::Present(toolchain) => toolchain.llvm,
            Self::Distribution { llvm, .. } => *llvm,
        }
    }
}

/// The last answer, whether or not it still holds.
pub(crate) fn remembered() -> Option<Toolchain> {
    serde_json::from_slice(&std::fs::read(file()).ok()?).ok()
}

pub(crate) fn choose() -> Result<Choice> {
    let key = sh::capture(&mut sh::cmd("rustc", &["--version"])).context("rustup's stable toolchain is needed")?;
    let memory = remembered().filter(|memory| memory.key == key).unwrap_or_default();
    if !memory.name.is_empty() && has_sources(&memory.sysroot) && linked(&memory.name) {
        return Ok(Choice::Present(memory));
    }
    let present = [NIGHTLY, PINNED, LINKED]
        .into_iter()
        .find_map(|name| inspect(name, &key));
    if let Some(found) = present {
        return Ok(Choice::Present(found));
    }
    let refused = match memory.refused {
        Some(refused) => refused,
        None => match fetch(&key) {
            Ok(found) => return Ok(Choice::Present(found)),
            Err(why) => format!("{why:#}"),
        },
    };
    save(&Toolchain {
        key: key.clone(),
        refused: Some(refused.clone()),
        ..Toolchain::default()
    })?;
    let found = apt::candidates("^(rustc|rustc-web|rustc-[0-9.]+|llvm-[0-9]+-dev)$")?;
    let Some(package) = newest_rustc(found.iter().map(|(name, version)| (name.as_str(), version.as_str()))) else {
        bail!(
            "no toolchain for eBPF: rustup cannot fetch a nightly ({refused}), and no packaged rustc is {}.{} or newer.\n\
             When the network is back, remove {} and run `cargo xtask setup` again",
            OLDEST.0,
            OLDEST.1,
            file().display()
        );
    };
    progress::note(&format!(
        "rustup has no nightly for us ({refused}); taking the distribution's {package}"
    ));
    let (packages, sysroot) = packages_of(package);
    let newest_llvm = linker::newest_llvm(found.keys().map(String::as_str));
    let llvm = newest_llvm.context("no LLVM package that bpf-linker can be built with")?;
    Ok(Choice::Distribution {
        packages,
        sysroot,
        llvm,
        key,
        refused,
    })
}

/// Links the distribution's toolchain if that was the choice, and writes the answer down.
pub(crate) fn complete(choice: Choice) -> Result<Toolchain> {
    let toolchain = match choice {
        Choice::Present(toolchain) => toolchain,
        Choice::Distribution {
            sysroot, key, refused, ..
        } => {
            sh::run(&mut sh::cmd("rustup", &["toolchain", "link", LINKED, &sysroot]))?;
            let found = inspect(LINKED, &key).with_context(|| format!("{sysroot} has no sources of core"))?;
            Toolchain {
                refused: Some(refused),
                ..found
            }
        }
    };
    save(&toolchain)?;
    Ok(toolchain)
}

/// A toolchain that rustup knows, that has core's sources, and whose LLVM bpf-linker reads.
fn inspect(name: &str, key: &str) -> Option<Toolchain> {
    about(name, key).filter(|found| has_sources(&found.sysroot))
}

/// The same, with or without the sources.
fn about(name: &str, key: &str) -> Option<Toolchain> {
    if !linked(name) {
        return None;
    }
    let about = sh::capture(&mut sh::cmd("rustup", &["run", name, "rustc", "-vV"])).ok()?;
    let sysroot = sh::capture(&mut sh::cmd("rustup", &["run", name, "rustc", "--print", "sysroot"])).ok()?;
    let field = |key: &str| about.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let release = field("release:")?;
    let llvm = apt::major_minor(field("LLVM version:")?)?.0;
    if apt::major_minor(release)? < OLDEST || !linker::reads(llvm) {
        return None;
    }
    Some(Toolchain {
        key: key.to_owned(),
        name: name.to_owned(),
        bootstrap: !release.contains("nightly"),
        llvm,
        sysroot,
        refused: None,
    })
}

fn has_sources(sysroot: &str) -> bool {
    Path::new(sysroot)
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
}

/// True when rustup lists the toolchain, so that asking for it downloads nothing.
fn linked(name: &str) -> bool {
    let list = sh::capture(&mut sh::cmd("rustup", &["toolchain", "list"])).unwrap_or_default();
    let mut names = list.lines().filter_map(|line| line.split(' ').next());
    names.any(|known| is_called(known, name))
}

/// Whether rustup's full name of a toolchain is this one, with or without the host's triple.
fn is_called(known: &str, name: &str) -> bool {
    known.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('-')
                .is_some_and(|host| host.starts_with(std::env::consts::ARCH))
    })
}

/// What rustup can add: the sources to a nightly that is there, as it is, else the one nightly that is known to serve.
fn fetch(key: &str) -> Result<Toolchain> {
    if about(NIGHTLY, key).is_some() {
        progress::note("asking rustup for rust-src of the nightly toolchain (eBPF programs need it)");
        let mut add = sh::cmd("rustup", &["component", "add", "rust-src", "--toolchain", NIGHTLY]);
        if let (Ok(()), Some(found)) = (patiently(&mut add), inspect(NIGHTLY, key)) {
            return Ok(found);
        }
    }
    progress::note(&format!(
        "asking rustup for the toolchain {PINNED} with rust-src (eBPF programs need it)"
    ));
    let arguments = "toolchain install --profile minimal --component rust-src --no-self-update";
    let mut install = sh::cmd("rustup", &arguments.split(' ').collect::<Vec<_>>());
    patiently(install.arg(PINNED))?;
    inspect(PINNED, key).with_context(|| format!("rustup installed {PINNED} without rust-src"))
}

/// Runs a download of rustup's.
fn patiently(rustup: &mut Command) -> Result<()> {
    rustup
        .env("RUSTUP_MAX_RETRIES", "0")
        .env("RUSTUP_DOWNLOAD_TIMEOUT", STALL_SECONDS);
    sh::within(rustup, NIGHTLY_LIMIT)
}

/// The newest packaged compiler that is new enough; its version from apt, as `rustc-web`'s name has none.
fn newest_rustc<'a>(found: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    found
        .filter(|(name, _)| name.starts_with("rustc"))
        .filter_map(|(name, version)| Some((apt::major_minor(version)?, name)))
        .filter(|(version, _)| *version >= OLDEST)
        .max()
        .map(|(_, name)| name)
}

/// Compiler, cargo and sources of one packaged toolchain, and the sysroot they share.
fn packages_of(rustc: &str) -> (Vec<String>, String) {
    let suffix = rustc.strip_prefix("rustc").unwrap_or_default();
    let sysroot = match suffix {
        "" | "-web" => "/usr".to_owned(),
        versioned => format!("/usr/lib/rust{versioned}"),
    };
    (
        vec![rustc.to_owned(), format!("cargo{suffix}"), format!("rust{suffix}-src")],
        sysroot,
    )
}

fn file() -> std::path::PathBuf {
    sh::target().join("xtask/toolchain.json")
}

/// Writes only what changed: the agent's build script watches this file.
fn save(toolchain: &Toolchain) -> Result<()> {
    let json = serde_json::to_string_pretty(toolchain)?;
    if std::fs::read_to_string(file()).is_ok_and(|old| old == json) {
        return Ok(());
    }
    sh::create(&file())?;
    std::fs::write(file(), json).with_context(|| format!("cannot write {}", file().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_packaged_compiler_wins_if_new_enough() {
        let check = |found: &[(&'static str, &'static str)], expected: Option<&str>| {
            assert_eq!(newest_rustc(found.iter().copied()), expected, "{found:?}");
        };
        check(
            &[("rustc", "1.63.0+dfsg1-2"), ("rustc-web", "1.96.0+dfsg1-1~deb12u2")],
            Some("rustc-web"),
        );
        check(
            &[
                ("rustc-1.95", "1.95.0-1"),
                ("rustc-1.97", "1.97.1-1"),
                ("rustc", "1.75"),
            ],
            Some("rustc-1.97"),
        );
        check(&[("rustc", "1.75.0"), ("rustc-1.89", "1.89.0")], None);
        check(&[("llvm-22-dev", "1:22.1")], None);
    }

    #[test]
    fn a_nightly_of_a_date_is_not_the_nightly() {
        let arch = std::env::consts::ARCH;
        for (known, name, expected) in [
            (format!("nightly-{arch}-unknown-linux-gnu"), NIGHTLY, true),
            (format!("{PINNED}-{arch}-unknown-linux-gnu"), NIGHTLY, false),
            (format!("{PINNED}-{arch}-unknown-linux-gnu"), PINNED, true),
            (LINKED.to_owned(), LINKED, true),
            ("bpf-old".to_owned(), LINKED, false),
        ] {
            assert_eq!(is_called(&known, name), expected, "{known} {name}");
        }
    }

    #[test]
    fn a_versioned_compiler_has_its_own_sysroot() {
        let (packages, sysroot) = packages_of("rustc-1.97");
        assert_eq!(packages, ["rustc-1.97", "cargo-1.97", "rust-1.97-src"]);
        assert_eq!(sysroot, "/usr/lib/rust-1.97");
        let (packages, sysroot) = packages_of("rustc-web");
        assert_eq!(packages, ["rustc-web", "cargo-web", "rust-web-src"]);
        assert_eq!(sysroot, "/usr");
    }
}
