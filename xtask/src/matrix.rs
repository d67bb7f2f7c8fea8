//! `cargo xtask test --matrix`: every Go version times every kind of build, here or, for arm64, in VMs. The test prints lines of
//! docs/go-support.md; each machine has its section there.

mod table;

use std::{ffi::OsString, process::Command};

use anyhow::{Context as _, Result};

use crate::{arch::Arch, demo_build, kernels, setup::Tools, sh, test};
use table::Table;

/// `versions`: those of the test's that are asked for, all when there are none. What the table has of the others stays.
pub(crate) fn run(tools: &Tools, arch: Arch, versions: &[String]) -> Result<()> {
    let (printed, verdict) = match arch {
        Arch::Amd64 => here(tools, versions)?,
        Arch::Arm64 => kernels::matrix(tools, versions)?,
    };
    let path = sh::root().join("docs/go-support.md");
    let document = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found = Table::default();
    printed
        .lines()
        .filter_map(table::printed)
        .for_each(|line| found.take(line));
    let before = table::section(&document, arch.name());
    if !versions.is_empty() {
        found.complete(&Table::read(before));
    }
    if !found.is_empty() {
        let document = table::with_section(&document, arch.name(), &found.text());
        std::fs::write(&path, document).with_context(|| format!("cannot write {}", path.display()))?;
    }
    verdict
}

/// What the test printed, and whether it passed.
fn here(tools: &Tools, versions: &[String]) -> Result<(String, Result<()>)> {
    demo_build::tracestat(tools)?;
    let mut command = test::command(tools, &["-p", "agent", "--test", "go_matrix", "--", "--nocapture"])?;
    command.env("WHYWAIT_GO_MATRIX", "whole");
    ask(&mut command, versions);
    let mut printed = String::new();
    let verdict = test::passed_through(&mut command, |line| {
        printed.push_str(line);
        printed.push('\n');
    });
    Ok((printed, verdict))
}

/// Builds what an arm64 VM tests, a folder for each version in `folder`.
pub(crate) fn build_across(tools: &Tools, versions: &[String], folder: &std::path::Path) -> Result<()> {
    let builds = ["-p", "agent", "--test", "go_matrix", "--", "--ignored"];
    let mut command = test::command(tools, &builds)?;
    command
        .env("GOARCH", Arch::Arm64.name())
        .env("WHYWAIT_GO_BUILDS_TO", folder);
    ask(&mut command, versions);
    test::passed_through(&mut command, |_| {})
}

fn ask(command: &mut Command, versions: &[String]) {
    if !versions.is_empty() {
        command.env("WHYWAIT_GO_VERSIONS", OsString::from(versions.join(",")));
    }
}
