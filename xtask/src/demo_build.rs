//! Building the demo services and the tests' oracles into target/demo.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{arch::Arch, build, progress, setup::Tools, sh};

const GO_SHOP: &str = "targets/go-shop";
const RUST: &[&str] = &["rust-stock", "load"];

pub(crate) fn folder() -> PathBuf {
    sh::target().join("demo")
}

/// What `run` shows: the two services and the load generator.
pub(crate) fn all(tools: &Tools) -> Result<PathBuf> {
    let mut build = sh::cargo(&["build", "--release"]);
    build.args(RUST.iter().flat_map(|name| ["--package", *name]));
    progress::step("Building the Rust demo services", &mut build)?;
    for name in RUST {
        sh::install(&sh::target().join("release").join(name), &folder().join(name))?;
    }
    go(tools, &sh::root().join(GO_SHOP), &folder().join("go-shop"), &[])?;
    Ok(folder())
}

/// What only tests need: tokio with its unstable metrics, and an OpenTelemetry Collector.
pub(crate) fn oracles(tools: &Tools) -> Result<()> {
    // In a target directory of its own: other flags would throw the ordinary build away.
    let unstable = sh::target().join("unstable");
    let mut build = sh::cargo(&["build", "--release", "--package", "rust-stock"]);
    build
        .env("RUSTFLAGS", "--cfg tokio_unstable")
        .env("CARGO_TARGET_DIR", &unstable);
    progress::step("Building rust-stock with tokio_unstable", &mut build)?;
    sh::install(
        &unstable.join("release/rust-stock"),
        &folder().join("rust-stock-unstable"),
    )?;
    tracestat(tools)?;
    go(
        tools,
        &sh::root().join("xtask/assets/otelcol"),
        &folder().join("otelcol"),
        &["-mod=mod"],
    )
}

/// The reader of execution traces.
pub(crate) fn tracestat(tools: &Tools) -> Result<()> {
    let module = sh::root().join("targets/go-shop/cmd/tracestat");
    go(tools, &module, &folder().join("tracestat"), &["-mod=mod"])
}

/// Static builds for the VMs, which have no C library: paths of whywait, go-shop, rust-stock, load.
pub(crate) fn for_vms(tools: &Tools, arch: Arch) -> Result<Vec<PathBuf>> {
    let title = format!("Building static programs for the VMs ({})", arch.name());
    // The agent by itself: it was, for its tests.
    for packages in [&["agent"][..], RUST] {
        build::statically(&title, packages, arch)?;
    }
    let mut programs = vec![go_for_vm(tools, arch, GO_SHOP, "go-shop", &[])?];
    programs.extend(["whywait", "rust-stock", "load"].map(|program| build::static_path(program, arch)));
    Ok(programs)
}

/// The agent alone.
pub(crate) fn agent_for_vm(arch: Arch) -> Result<PathBuf> {
    let title = format!("Building the agent for the VMs ({})", arch.name());
    build::statically(&title, &["agent"], arch)?;
    Ok(build::static_path("whywait", arch))
}

/// What the arm64 VM needs besides: its first process, and the trace's reader.
pub(crate) fn for_arm64_vm(tools: &Tools) -> Result<(PathBuf, PathBuf)> {
    let init = go_for_vm(tools, Arch::Arm64, "xtask/assets/vm-arm64", "init", &[])?;
    let reader = "targets/go-shop/cmd/tracestat";
    let reader = go_for_vm(tools, Arch::Arm64, reader, "tracestat", &["-mod=mod"])?;
    Ok((init, reader))
}

/// In place of a test program's name: the tests within the library.
pub(crate) const UNIT_TESTS: &str = "agent";

/// Test programs of agent, for VMs.
pub(crate) fn tests_for_vms(arch: Arch, tests: &[&str]) -> Result<Vec<PathBuf>> {
    let mut build = sh::cargo(&[
        "test",
        "--release",
        "--no-run",
        "--message-format=json",
        "--package",
        "agent",
    ]);
    arch.link_statically(&mut build);
    for name in tests {
        if *name == UNIT_TESTS {
            build.arg("--lib");
        } else {
            build.args(["--test", *name]);
        }
    }
    progress::note(&sh::show(&build));
    let messages = sh::capture(&mut build)?;
    let mut programs = Vec::new();
    for name in tests {
        let built = executable(&messages, name).with_context(|| format!("cargo built no test {name}"))?;
        let to = folder_of(arch).join(name);
        sh::install(&built, &to)?;
        programs.push(to);
    }
    Ok(programs)
}

/// The program of a test among cargo's messages.
fn executable(messages: &str, test: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_test = messages.filter(|message| message["target"]["name"] == test);
    of_test.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn folder_of(arch: Arch) -> PathBuf {
    match arch {
        Arch::Amd64 => folder().join("static"),
        Arch::Arm64 => folder().join(arch.name()),
    }
}

fn go_for_vm(tools: &Tools, arch: Arch, module: &str, name: &str, flags: &[&str]) -> Result<PathBuf> {
    let to = folder_of(arch).join(name);
    go_for(tools, arch, &sh::root().join(module), &to, flags)?;
    Ok(to)
}

fn go(tools: &Tools, module: &Path, to: &Path, flags: &[&str]) -> Result<()> {
    go_for(tools, Arch::Amd64, module, to, flags)
}

/// Builds one Go program; all of them without cgo, as `-buildvcs` stamps and C libraries only make builds differ.
fn go_for(tools: &Tools, arch: Arch, module: &Path, to: &Path, flags: &[&str]) -> Result<()> {
    if !module.join("go.mod").exists() {
        bail!("{} has no go.mod", module.display());
    }
    std::fs::create_dir_all(to.parent().context("a program lies in a folder")?)?;
    let mut build = tools.go.command(module, &["build", "-buildvcs=false"]);
    build.args(flags).arg("-o").arg(to).arg(".").env("CGO_ENABLED", "0");
    build.env("GOARCH", arch.name());
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    progress::step(&format!("Building {name}"), &mut build)
}
