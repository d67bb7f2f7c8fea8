//! Building the demo services and the tests' oracles into target/demo.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{build, progress, setup::Tools, sh};

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
    go(
        tools,
        &sh::root().join("targets/go-shop/cmd/tracestat"),
        &folder().join("tracestat"),
        &["-mod=mod"],
    )?;
    go(
        tools,
        &sh::root().join("xtask/assets/otelcol"),
        &folder().join("otelcol"),
        &["-mod=mod"],
    )
}

/// Static builds for the VMs, which have no C library: paths of whywait, go-shop, rust-stock, load.
pub(crate) fn for_vms(tools: &Tools) -> Result<Vec<PathBuf>> {
    build::statically("Building static programs for the VMs", &["agent", "rust-stock", "load"])?;
    let shop = folder().join("static/go-shop");
    go(tools, &sh::root().join(GO_SHOP), &shop, &[])?;
    let mut programs = vec![shop];
    programs.extend(["whywait", "rust-stock", "load"].map(build::static_path));
    Ok(programs)
}

/// Builds one Go program; all of them without cgo, as `-buildvcs` stamps and C libraries only make builds differ.
fn go(tools: &Tools, module: &Path, to: &Path, flags: &[&str]) -> Result<()> {
    if !module.join("go.mod").exists() {
        bail!("{} has no go.mod", module.display());
    }
    std::fs::create_dir_all(to.parent().context("a program lies in a folder")?)?;
    let mut build = tools.go.command(module, &["build", "-buildvcs=false"]);
    build.args(flags).arg("-o").arg(to).arg(".").env("CGO_ENABLED", "0");
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    progress::step(&format!("Building {name}"), &mut build)
}
