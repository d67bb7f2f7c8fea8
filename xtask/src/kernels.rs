//! The agent's selftest on older kernels: Debian's own, booted in VMs on static targets.
//!
//! Emulated (TCG, one thread): stock kernels do not boot on every nested KVM, and nothing here is timed.

mod boot;
mod fetch;
mod initrd;
mod matrix;

use std::{path::Path, thread};

use anyhow::{Context as _, Result, bail};

pub(crate) use fetch::missing_packages;
pub(crate) use matrix::matrix;

use crate::{arch::Arch, demo_build, progress, setup::Tools, sh};
use fetch::Kernel;

/// Kernel series and the Debian suite that carries it.
const SERIES: &[(&str, &str)] = &[("5.10", "bullseye-security"), ("6.1", "bookworm-security")];

/// Test programs of agent, and which of each, that ask for what the build's machine may not have: cgroups of version 2. `+` parts
/// names.
const TESTS: &[(&str, &str)] = &[("causes", "quota"), ("threads", "throttled")];

/// The oldest with all that Debian's cloud kernels for arm64 have.
const ARM64_SERIES: &[(&str, &str)] = &[("6.1", "bookworm-security")];
/// As `TESTS`. Counts against the runtime's own, no times.
const ARM64_TESTS: &[(&str, &str)] = &[
    ("go_oracle", ""),
    ("e2e_go", "many_switches_are_those_of_the_execution_trace"),
];

/// Boots every series, all at once; fails when one of them does.
pub(crate) fn test(tools: &Tools) -> Result<()> {
    let kernels = fetch::all(SERIES, Arch::Amd64)?;
    let programs = demo_build::for_vms(tools, Arch::Amd64)?;
    let tests = demo_build::tests_for_vms(Arch::Amd64, &names(TESTS))?;
    let image = sh::target().join("kernels/initrd.cpio.gz");
    let init = sh::root().join("xtask/assets/vm/init");
    initrd::pack(
        &init,
        &[programs, tests, vec!["/bin/busybox".into()]].concat(),
        &[],
        &image,
    )?;
    boot_all(kernels, &image, TESTS)
}

/// The tests that ask a Go program's own account, on arm64: cross-built, emulated.
pub(crate) fn test_arm64(tools: &Tools) -> Result<()> {
    let kernels = fetch::all(ARM64_SERIES, Arch::Arm64)?;
    let programs = demo_build::for_vms(tools, Arch::Arm64)?;
    let (init, reader) = demo_build::for_arm64_vm(tools)?;
    let tests = demo_build::tests_for_vms(Arch::Arm64, &names(ARM64_TESTS))?;
    let image = sh::target().join("kernels/initrd-arm64.cpio.gz");
    initrd::pack(&init, &[programs, tests, vec![reader]].concat(), &[], &image)?;
    boot_all(kernels, &image, ARM64_TESTS)
}

fn names(tests: &[(&'static str, &str)]) -> Vec<&'static str> {
    tests.iter().map(|(name, _)| *name).collect()
}

/// Tests go onto the kernels' command line.
fn boot_all(kernels: Vec<Kernel>, image: &Path, tests: &[(&str, &str)]) -> Result<()> {
    let words: Vec<String> = tests.iter().map(|(name, only)| format!("test={name}:{only}")).collect();
    let words = words.join(" ");
    progress::note(&format!("booting {} kernels in VMs", kernels.len()));
    let running: Vec<_> = kernels
        .into_iter()
        .map(|kernel| {
            let (image, words) = (image.to_path_buf(), words.clone());
            (
                kernel.name(),
                thread::spawn(move || boot::verdict(&kernel, &image, &words, &boot::log(&kernel.name()))),
            )
        })
        .collect();
    let mut failed = Vec::new();
    for (series, thread) in running {
        let verdict = thread.join().ok().context("the thread that ran a VM panicked")?;
        match verdict {
            Ok(lines) => lines
                .iter()
                .for_each(|line| progress::note(&format!("kernel {series}: {line}"))),
            Err(why) => {
                eprintln!("kernel {series}: {why:#}");
                failed.push(series);
            }
        }
    }
    if !failed.is_empty() {
        bail!("kernels: {} failed", failed.join(", "));
    }
    Ok(())
}
