//! bpf-linker: links LLVM bitcode into a BPF object, so it is built against an LLVM that can read the toolchain's.

use anyhow::{Context as _, Result, bail};

use super::{
    apt,
    toolchain::{Choice, Toolchain},
};
use crate::{progress, sh};

const VERSION: &str = "0.13.0";
/// The LLVM majors this version of bpf-linker has a feature for.
const SUPPORTED: [u32; 3] = [21, 22, 23];

/// The packages its build needs, when it has to be built.
pub(super) fn missing_packages(choice: &Choice) -> Result<Vec<String>> {
    if is_installed() {
        return Ok(Vec::new());
    }
    let Some(llvm) = buildable(choice.llvm())? else {
        return Ok(Vec::new());
    };
    let needed = packages(llvm);
    Ok(needed.into_iter().filter(|name| !apt::installed(name)).collect())
}

/// Installs bpf-linker unless it is there.
pub(super) fn ensure(toolchain: &Toolchain) -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    let Some(llvm) = buildable(toolchain.llvm)? else {
        bail!(
            "bpf-linker {VERSION} is missing, and no packaged LLVM from {} on can build it.\n\
             Install its release binary into a folder of PATH (its README says how), then run this again",
            toolchain.llvm
        );
    };
    progress::note(&format!(
        "installing bpf-linker {VERSION} for LLVM {llvm} with cargo install"
    ));
    let feature = format!("llvm-{llvm}");
    let mut install = sh::cargo(&[
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
        "--no-default-features",
        "--features",
        &feature,
    ]);
    install
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
        .env_remove("RUSTFLAGS");
    progress::step("Building bpf-linker", &mut install)?;
    if !is_installed() {
        bail!("bpf-linker {VERSION} was installed but is not in PATH: add cargo's bin folder to it");
    }
    Ok(())
}

fn is_installed() -> bool {
    let version = sh::capture(&mut sh::cmd("bpf-linker", &["--version"]));
    version.is_ok_and(|version| version.ends_with(VERSION))
}

/// The packaged LLVM nearest to the toolchain's: a newer LLVM reads older bitcode, not the other way round.
fn buildable(toolchain: u32) -> Result<Option<u32>> {
    let found = apt::candidates("^llvm-[0-9]+-dev$").context("bpf-linker needs an LLVM")?;
    Ok(majors(found.keys().map(String::as_str))
        .filter(|llvm| *llvm >= toolchain)
        .min())
}

/// The newest LLVM among these packages that bpf-linker can be built with.
pub(super) fn newest_llvm<'a>(names: impl Iterator<Item = &'a str>) -> Option<u32> {
    majors(names).max()
}

fn majors<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = u32> {
    names
        .filter_map(|name| name.strip_prefix("llvm-")?.strip_suffix("-dev")?.parse().ok())
        .filter(|major| SUPPORTED.contains(major))
}

fn packages(llvm: u32) -> Vec<String> {
    let fixed = ["gcc", "g++", "libc6-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev"].map(str::to_owned);
    let versioned = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    versioned.into_iter().chain(fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_supported_llvm() {
        for (names, expected) in [
            (&["llvm-16-dev", "llvm-22-dev", "llvm-21-dev"][..], Some(22)),
            (&["llvm-16-dev", "llvm-dev", "rustc-web"][..], None),
            (&["llvm-24-dev", "llvm-23-dev"][..], Some(23)),
        ] {
            assert_eq!(newest_llvm(names.iter().copied()), expected, "{names:?}");
        }
    }
}
