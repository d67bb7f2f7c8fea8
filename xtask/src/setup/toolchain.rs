//! The Rust toolchain that compiles agent-ebpf: it needs `core`'s sources (`-Z build-std`).
//!
//! In order of preference: what is there already (nightly, then a linked distribution toolchain called `bpf`), what
//! rustup can fetch (nightly), what the distribution packages. The answer is kept in target/xtask/toolchain.json,
//! which agent/build.rs reads, and asked for anew when the workspace's own rustc changes.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt;
use crate::{progress, sh};

/// The name under which the distribution's toolchain is linked into rustup.
const LINKED: &str = "bpf";
const NIGHTLY: &str = "nightly";
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
    sysroot: String,
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
    if let Some(found) = inspect(NIGHTLY, &key).or_else(|| inspect(LINKED, &key)) {
        return Ok(Choice::Present(found));
    }
    let refused = match memory.refused {
        Some(refused) => refused,
        None => match fetch_nightly() {
            Ok(()) => match inspect(NIGHTLY, &key) {
                Some(found) => return Ok(Choice::Present(found)),
                None => "rustup installed a nightly without rust-src".to_owned(),
            },
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
    let newest_llvm = super::linker::newest_llvm(found.keys().map(String::as_str));
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

/// A toolchain that rustup knows and that has core's sources.
fn inspect(name: &str, key: &str) -> Option<Toolchain> {
    if !linked(name) {
        return None;
    }
    let about = sh::capture(&mut sh::cmd("rustup", &["run", name, "rustc", "-vV"])).ok()?;
    let sysroot = sh::capture(&mut sh::cmd("rustup", &["run", name, "rustc", "--print", "sysroot"])).ok()?;
    let field = |key: &str| about.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let release = field("release:")?;
    if apt::major_minor(release)? < OLDEST || !has_sources(&sysroot) {
        return None;
    }
    Some(Toolchain {
        key: key.to_owned(),
        name: name.to_owned(),
        bootstrap: !release.contains("nightly"),
        llvm: apt::major_minor(field("LLVM version:")?)?.0,
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
    names.any(|known| known == name || (name == NIGHTLY && known.starts_with("nightly-x86_64")))
}

fn fetch_nightly() -> Result<()> {
    progress::note("asking rustup for a nightly toolchain with rust-src (eBPF programs need it)");
    let mut install = sh::cmd(
        "rustup",
        &[
            "toolchain",
            "install",
            NIGHTLY,
            "--profile",
            "minimal",
            "--component",
            "rust-src",
            "--no-self-update",
        ],
    );
    install
        .env("RUSTUP_MAX_RETRIES", "0")
        .env("RUSTUP_DOWNLOAD_TIMEOUT", STALL_SECONDS);
    sh::within(&mut install, NIGHTLY_LIMIT)
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
    fn a_versioned_compiler_has_its_own_sysroot() {
        let (packages, sysroot) = packages_of("rustc-1.97");
        assert_eq!(packages, ["rustc-1.97", "cargo-1.97", "rust-1.97-src"]);
        assert_eq!(sysroot, "/usr/lib/rust-1.97");
        let (packages, sysroot) = packages_of("rustc-web");
        assert_eq!(packages, ["rustc-web", "cargo-web", "rust-web-src"]);
        assert_eq!(sysroot, "/usr");
    }
}
