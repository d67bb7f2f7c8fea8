//! `cargo xtask build`: the agent with its eBPF object inside, and the demo services.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{demo_build, progress, setup, sh};

#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Options {
    /// The released agent: statically linked, runs on any host of its architecture
    #[arg(long = "static")]
    link_statically: bool,
    /// Only the agent, not the demo services
    #[arg(long)]
    no_demo: bool,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let tools = setup::ensure(setup::Wanted::default())?;
    let agent = if options.link_statically {
        static_agent()?
    } else {
        agent()?
    };
    progress::note(&format!("built {}", agent.display()));
    if !options.no_demo {
        let demo = demo_build::all(&tools)?;
        progress::note(&format!("built the demo services in {}", demo.display()));
    }
    Ok(())
}

/// The agent for this machine; build.rs compiles agent-ebpf on the way, with the toolchain that setup remembered.
pub(crate) fn agent() -> Result<PathBuf> {
    progress::step(
        "Building the agent",
        &mut sh::cargo(&["build", "--release", "--package", "agent"]),
    )?;
    Ok(sh::target().join("release/whywait"))
}

/// The released agent.
pub(crate) fn static_agent() -> Result<PathBuf> {
    statically("Building the static agent", &["agent"])?;
    Ok(static_path("whywait"))
}

/// Builds packages with the C library linked in; `--target` keeps the flag away from build scripts and macros.
pub(crate) fn statically(title: &str, packages: &[&str]) -> Result<()> {
    let mut build = sh::cargo(&["build", "--release", "--target", sh::STATIC_TARGET]);
    for package in packages {
        build.args(["--package", package]);
    }
    progress::step(title, build.env("RUSTFLAGS", "-C target-feature=+crt-static"))
}

/// Where `statically` puts a program.
pub(crate) fn static_path(program: &str) -> PathBuf {
    sh::target().join(sh::STATIC_TARGET).join("release").join(program)
}
