//! Compiles agent-ebpf for the BPF target into OUT_DIR, from where the agent includes the object.
//!
//! Which toolchain does it is `cargo xtask setup`'s answer in target/xtask/toolchain.json; WHYWAIT_BPF_TOOLCHAIN
//! overrides it with a toolchain's rustup name.

use std::{env, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain, build_ebpf};

const OVERRIDE: &str = "WHYWAIT_BPF_TOOLCHAIN";
const MEMORY: &str = "target/xtask/toolchain.json";

fn main() {
    if let Err(why) = build() {
        eprintln!("{why:#}");
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    let manifest = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().context("the agent lies in a workspace")?;
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-changed={}", root.join("agent-common").display());
    println!("cargo::rerun-if-changed={}", root.join(MEMORY).display());

    let name = toolchain(root)
        .context("no toolchain for eBPF programs is set up: run `cargo xtask setup`, which finds or installs one")?;
    if !name.starts_with("nightly") {
        // SAFETY: a build script's main thread is alone here, so nobody reads the environment meanwhile.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let package = root.join("agent-ebpf");
    let package = Package {
        name: "agent-ebpf",
        root_dir: package.to_str().context("the workspace's path is not UTF-8")?,
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&name))
        .with_context(|| format!("building agent-ebpf with toolchain `{name}`; `cargo xtask setup` checks its parts"))
}

/// The toolchain's name in rustup.
fn toolchain(root: &Path) -> Option<String> {
    if let Ok(name) = env::var(OVERRIDE) {
        return Some(name);
    }
    let memory = std::fs::read_to_string(root.join(MEMORY)).ok()?;
    let name = memory
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"name\": \""))?;
    Some(name.trim_end_matches(',').trim_end_matches('"').to_owned()).filter(|name| !name.is_empty())
}
