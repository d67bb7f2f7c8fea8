//! bpf-linker: links LLVM bitcode into a BPF object, so it is built against an LLVM that can read the toolchain's: the
//! library that a toolchain of rustup's brings for its own compiler, else a packaged one.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt,
    toolchain::{Choice, Toolchain},
};
use crate::{progress, sh};

const VERSION: &str = "0.13.0";
/// The LLVM majors this version of bpf-linker has a feature for.
const SUPPORTED: [u32; 3] = [21, 22, 23];

/// Whether this version of bpf-linker, built as new as can be, reads the bitcode of such an LLVM.
pub(super) fn reads(llvm: u32) -> bool {
    SUPPORTED.into_iter().any(|supported| supported >= llvm)
}

/// The packages its build needs, when it has to be built.
pub(super) fn missing_packages(choice: &Choice) -> Result<Vec<String>> {
    let own = match choice {
        Choice::Present(toolchain) => own_library(toolchain),
        Choice::Distribution { .. } => None,
    };
    if is_installed(choice.llvm()) || own.is_some() {
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
    if is_installed(toolchain.llvm) {
        return Ok(());
    }
    let mut flags = Vec::new();
    let (llvm, prefix) = match own_library(toolchain) {
        Some(library) => {
            // The linker finds the library where rustup has it, whatever becomes of the folder it was built with.
            flags.push(format!("-Clink-arg=-Wl,-rpath,{}/lib", toolchain.sysroot));
            (toolchain.llvm, prefix_of(&library)?)
        }
        None => match buildable(toolchain.llvm)? {
            Some(llvm) => (llvm, PathBuf::from(format!("/usr/lib/llvm-{llvm}"))),
            None => bail!(
                "bpf-linker {VERSION} is missing, and there is no LLVM from {} on that can build it.\n\
                 Install its release binary into a folder of PATH (its README says how), then run this again",
                toolchain.llvm
            ),
        },
    };
    progress::note(&format!(
        "installing bpf-linker {VERSION} for LLVM {llvm} with cargo install"
    ));
    let arguments = "install bpf-linker --locked --force --no-default-features --version";
    let mut install = sh::cargo(&arguments.split(' ').collect::<Vec<_>>());
    install
        .args([VERSION, "--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", prefix)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    progress::step("Building bpf-linker", &mut install)?;
    if !is_installed(toolchain.llvm) {
        bail!("bpf-linker {VERSION} was installed but is not the first in PATH: put cargo's bin folder before it");
    }
    Ok(())
}

/// Whether the bpf-linker in PATH is this version, runs, and reads the bitcode of such an LLVM.
fn is_installed(llvm: u32) -> bool {
    let version = sh::capture(&mut sh::cmd("bpf-linker", &["--version"]));
    let Some(path) = sh::which("bpf-linker").filter(|_| version.is_ok_and(|version| version.ends_with(VERSION))) else {
        return false;
    };
    let libraries = sh::capture(sh::cmd("ldd", &[]).arg(path)).unwrap_or_default();
    linked_llvm(&libraries) >= llvm
}

/// The LLVM among a program's shared libraries. Release binaries contain theirs: it is the newest that they support.
fn linked_llvm(ldd: &str) -> u32 {
    let major = |line: &str| -> Option<u32> {
        let (_, rest) = line.trim().split_once("libLLVM")?;
        let digits = rest.trim_start_matches(['.', 's', 'o', '-']);
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let newest = SUPPORTED.into_iter().max().unwrap_or_default();
    ldd.lines().find_map(major).unwrap_or(newest)
}

/// The LLVM that the toolchain's compiler itself is linked with, BPF back end and all: rustup's have it as a library.
fn own_library(toolchain: &Toolchain) -> Option<PathBuf> {
    if !SUPPORTED.contains(&toolchain.llvm) {
        return None;
    }
    let start = format!("libLLVM.so.{}.", toolchain.llvm);
    let entries = std::fs::read_dir(Path::new(&toolchain.sysroot).join("lib")).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&start))
    })
}

/// A folder in which bpf-linker's build finds the library under the name that it looks for.
fn prefix_of(library: &Path) -> Result<PathBuf> {
    let prefix = sh::target().join("xtask/llvm");
    if prefix.exists() {
        std::fs::remove_dir_all(&prefix)?;
    }
    let lib = prefix.join("lib");
    std::fs::create_dir_all(&lib)?;
    symlink(library, lib.join("libLLVM.so")).with_context(|| format!("cannot link {}", library.display()))?;
    Ok(prefix)
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
    fn llvm_of_a_linker() {
        for (ldd, expected) in [
            ("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)", 22),
            (
                "\tlibc.so.6 => /x\n\tlibLLVM.so.21.1-rust-1.95.0-stable => /y (0x7f)",
                21,
            ),
            ("\tlibLLVM-17.so.1 => /usr/lib/llvm-17/lib/libLLVM-17.so.1 (0x7f)", 17),
            ("\tstatically linked", 23),
        ] {
            assert_eq!(linked_llvm(ldd), expected, "{ldd}");
        }
    }

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
