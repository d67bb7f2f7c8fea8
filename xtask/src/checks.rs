//! Format and lints of every language here.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    progress,
    setup::{Tools, toolchain},
    sh,
};

/// Folders with Go modules of ours.
const GO_MODULES: &[&str] = &[
    "targets/go-shop",
    "targets/go-shop/cmd/tracestat",
    "xtask/assets/otelcol",
    "xtask/assets/vm-arm64",
];

pub(crate) fn rust_format() -> Result<()> {
    let mut fmt = sh::cargo(&["fmt", "--all", "--check"]);
    progress::step("Checking the format", &mut fmt)
}

/// In release, so that the artefacts (the eBPF object above all) serve the tests too.
pub(crate) fn clippy() -> Result<()> {
    let mut clippy = sh::cargo(&[
        "clippy",
        "--release",
        "--workspace",
        "--exclude",
        "agent-ebpf",
        "--all-targets",
    ]);
    progress::step("Clippy", clippy.args(["--", "--deny", "warnings"]))?;
    ebpf()
}

/// The readers by themselves, as libFuzzer gets them: a workspace of its own that nothing else builds.
pub(crate) fn fuzzed_readers() -> Result<()> {
    let mut check = sh::cargo(&["check", "--lib", "--no-default-features"]);
    check
        .args(["--manifest-path", "agent/fuzz/Cargo.toml", "--target-dir"])
        .arg(sh::target().join("fuzz-check"))
        .env("RUSTFLAGS", "--cfg fuzzing --deny warnings");
    progress::step("Checking the readers for libFuzzer", &mut check)
}

/// agent-ebpf with its own toolchain: clippy where it has one, otherwise the compiler's warnings.
fn ebpf() -> Result<()> {
    let Some(toolchain) = toolchain::remembered() else {
        bail!("no toolchain for agent-ebpf: run `cargo xtask setup`");
    };
    let has_clippy = sh::capture(&mut sh::cmd(
        "rustup",
        &["run", &toolchain.name, "cargo-clippy", "--version"],
    ))
    .is_ok();
    let (verb, title) = if has_clippy {
        ("clippy", "Clippy on agent-ebpf")
    } else {
        ("check", "Warnings of agent-ebpf")
    };
    let mut command = Command::new("rustup");
    command.args([
        "run",
        &toolchain.name,
        "cargo",
        verb,
        "--release",
        "--package",
        "agent-ebpf",
        "--bins",
    ]);
    command
        .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none"])
        .current_dir(sh::root());
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", sh::target().join("xtask/ebpf"));
    // The rustup proxy set these for the workspace's own toolchain.
    command
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    command.env("RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\" --deny=warnings");
    progress::step(title, &mut command)
}

pub(crate) fn go(tools: &Tools) -> Result<()> {
    for module in GO_MODULES {
        let folder = sh::root().join(module);
        let unformatted = sh::capture(Command::new(tools.go.gofmt()).arg("-l").arg(&folder))?;
        if !unformatted.is_empty() {
            bail!("gofmt would change:\n{unformatted}");
        }
        let mut vet = tools.go.command(&folder, &["vet", "-mod=mod", "./..."]);
        progress::step(&format!("go vet {module}"), vet.env("CGO_ENABLED", "0"))?;
    }
    Ok(())
}
