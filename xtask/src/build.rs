//! `cargo xtask build`: the agent with its eBPF object inside, and the demo services.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{arch::Arch, demo_build, progress, setup, sh};

#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Options {
    /// The released agent: statically linked, runs on any host of its architecture
    #[arg(long = "static")]
    link_statically: bool,
    /// Only the agent, not the demo services
    #[arg(long)]
    no_demo: bool,
    /// The released agent for arm64, and nothing else
    #[arg(long, conflicts_with = "link_statically")]
    arm64: bool,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let tools = setup::ensure(setup::Wanted {
        arm64: options.arm64,
        ..setup::Wanted::default()
    })?;
    if options.arm64 {
        statically("Building the static agent for arm64", &["agent"], Arch::Arm64)?;
        progress::note(&format!("built {}", static_path("whywait", Arch::Arm64).display()));
        return Ok(());
    }
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
    statically("Building the static agent", &["agent"], Arch::Amd64)?;
    Ok(static_path("whywait", Arch::Amd64))
}

/// Builds packages with the C library linked in.
pub(crate) fn statically(title: &str, packages: &[&str], arch: Arch) -> Result<()> {
    arch.ensure_std()?;
    let mut build = sh::cargo(&["build", "--release"]);
    arch.link_statically(&mut build);
    for package in packages {
        build.args(["--package", package]);
    }
    progress::step(title, &mut build)
}

/// Where `statically` puts a program.
pub(crate) fn static_path(program: &str, arch: Arch) -> PathBuf {
    sh::target().join(arch.triple()).join("release").join(program)
}
