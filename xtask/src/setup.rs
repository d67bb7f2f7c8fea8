//! `cargo xtask setup`: what this machine lacks, and how it gets it.
//!
//! System packages come in one `apt-get` line, done here as root or printed for sudo; the rest lands in the user's
//! own rustup and cargo folders. When nothing is missing this only stats files and asks four programs their version.

pub(crate) mod apt;
pub(crate) mod golang;
mod linker;
pub(crate) mod toolchain;

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use clap::Args;

use crate::{kernels, progress, sh};

#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Also what only tests need: the VMs' packages and cargo-deny
    #[arg(long)]
    dev: bool,
}

/// The tools that later commands call by name or path.
pub(crate) struct Tools {
    pub(crate) go: golang::Go,
}

/// What is wanted beyond building and running.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// The packages that boot kernels in VMs, run containers and make network namespaces.
    pub(crate) kernels: bool,
    /// The packages that build for arm64.
    pub(crate) arm64: bool,
    /// The emulator of arm64.
    pub(crate) arm64_kernels: bool,
}

const KERNEL_TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
];
const ARM64_BUILD: &[(&str, &str)] = &[("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")];
/// The C library's files for it: no program of its own shows that they are there.
const ARM64_LIBC: (&str, &str) = ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross");
const ARM64_KERNEL_TOOLS: &[(&str, &str)] = &[("qemu-system-aarch64", "qemu-system-arm"), ("cpio", "cpio")];
const TRACEFS: &str = "/sys/kernel/tracing";

pub(crate) fn run(options: Options) -> Result<()> {
    let tools = ensure(Wanted {
        kernels: options.dev,
        ..Wanted::default()
    })?;
    if options.dev && sh::which("cargo-deny").is_none() {
        let mut install = sh::cargo(&["install", "cargo-deny", "--version", "~0.20", "--locked"]);
        progress::step("Installing cargo-deny", &mut install)?;
    }
    let toolchain = toolchain::remembered();
    let bpf = toolchain.map_or_else(|| "none".to_owned(), |found| found.name);
    progress::note(&format!("ready: eBPF toolchain `{bpf}`, {}", tools.go.version));
    Ok(())
}

/// Finds every tool, installing what is missing.
pub(crate) fn ensure(wanted: Wanted) -> Result<Tools> {
    let mut packages = base_packages();
    let mut programs: Vec<&(&str, &str)> = Vec::new();
    if wanted.kernels {
        programs.extend(KERNEL_TOOLS);
    }
    if wanted.arm64 {
        programs.extend(ARM64_BUILD);
        if !Path::new(ARM64_LIBC.0).exists() {
            packages.push(ARM64_LIBC.1.to_owned());
        }
    }
    if wanted.arm64_kernels {
        programs.extend(ARM64_KERNEL_TOOLS);
    }
    let missing = programs.into_iter().filter(|(program, _)| find(program).is_none());
    packages.extend(missing.map(|(_, package)| (*package).to_owned()));
    if wanted.kernels || wanted.arm64_kernels {
        packages.extend(kernels::missing_packages());
    }
    let go = golang::find();
    if go.is_none() {
        packages.extend(golang::package()?);
    }
    let bpf = toolchain::choose()?;
    packages.extend(bpf.missing_packages()?);
    packages.extend(linker::missing_packages(&bpf)?);
    as_root(&packages, Path::new(TRACEFS).join("events").exists())?;

    let bpf = toolchain::complete(bpf)?;
    linker::ensure(&bpf)?;
    let go = match go {
        Some(go) => go,
        None => golang::after_install()?,
    };
    Ok(Tools { go })
}

/// The system packages without which nothing links.
fn base_packages() -> Vec<String> {
    let mut packages = Vec::new();
    if find("cc").is_none() {
        packages.extend(["gcc", "libc6-dev"]);
    } else if !Path::new("/usr/include/stdlib.h").exists() {
        packages.push("libc6-dev");
    }
    if find("git").is_none() {
        packages.push("git");
    }
    packages.into_iter().map(str::to_owned).collect()
}

/// As `which`, but also in the folders that an ordinary user's PATH leaves out.
fn find(program: &str) -> Option<std::path::PathBuf> {
    let extra = ["/usr/sbin", "/sbin", "/bin"].map(|folder| Path::new(folder).join(program));
    sh::which(program).or_else(|| extra.into_iter().find(|file| file.is_file()))
}

/// Installs the packages and mounts tracefs, or says the one line that would.
fn as_root(packages: &[String], tracefs: bool) -> Result<()> {
    // An ordinary user may not see into a mounted tracefs: the mount table says whether there is one.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let tracefs = tracefs || mounts.lines().any(|line| line.split(' ').nth(1) == Some(TRACEFS));
    if packages.is_empty() && tracefs {
        return Ok(());
    }
    if !sh::is_root() {
        bail!(
            "this needs root once; run:\n\n    {}\n\nand then this command again",
            sudo_line(packages, tracefs)
        );
    }
    if !packages.is_empty() {
        progress::note(&format!("installing {}", packages.join(" ")));
        let mut update = apt::get(&["update"]);
        progress::step("Updating the package lists", &mut update)?;
        let mut install = apt::get(&["install", "--yes", "--no-install-recommends"]);
        progress::step("Installing packages", install.args(packages))?;
    }
    if !tracefs {
        progress::note(&format!("mounting tracefs on {TRACEFS}"));
        let mut mount = Command::new("mount");
        if let Err(why) = sh::run(mount.args(["-t", "tracefs", "nodev", TRACEFS])) {
            // Building does not need it; the agent says so itself when it starts.
            progress::note(&format!("{why:#}; the agent cannot attach to tracepoints without it"));
        }
    }
    Ok(())
}

/// Everything that needs root, as one line for a shell.
fn sudo_line(packages: &[String], tracefs: bool) -> String {
    let mut parts = Vec::new();
    if !packages.is_empty() {
        parts.push("apt-get update".to_owned());
        parts.push(format!(
            "apt-get install --yes --no-install-recommends {}",
            packages.join(" ")
        ));
    }
    if !tracefs {
        parts.push(format!("mount -t tracefs nodev {TRACEFS}"));
    }
    format!("sudo sh -c '{}'", parts.join(" && "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(packages: &[&str], tracefs: bool, expected: &str) {
        let packages: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(sudo_line(&packages, tracefs), expected);
    }

    #[test]
    fn one_line_says_all_that_needs_root() {
        check(&[], false, "sudo sh -c 'mount -t tracefs nodev /sys/kernel/tracing'");
        check(
            &["gcc", "git"],
            true,
            "sudo sh -c 'apt-get update && apt-get install --yes --no-install-recommends gcc git'",
        );
    }
}
