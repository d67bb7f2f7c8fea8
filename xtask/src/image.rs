//! `cargo xtask image`: the static agent alone in a FROM-scratch image.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{build, progress, setup, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// The image's name and tag
    #[arg(long, default_value = "whywait:latest")]
    tag: String,
}

/// Container engines, the preferred one first.
const ENGINES: [&str; 2] = ["podman", "docker"];

pub(crate) fn run(options: Options) -> Result<()> {
    let engine = ENGINES.into_iter().find(|engine| sh::which(engine).is_some());
    let engine = engine.context("an image needs podman or docker, and neither is in PATH")?;
    setup::ensure(setup::Wanted::default())?;
    let agent = build::static_agent()?;

    // A context of two files: the engine would send it the whole target directory otherwise.
    let context = sh::target().join("image");
    sh::install(&agent, &context.join("whywait"))?;
    sh::install(&sh::root().join("deploy/Containerfile"), &context.join("Containerfile"))?;
    let mut command = sh::cmd(engine, &["build", "--tag", &options.tag, "--file"]);
    command.arg(context.join("Containerfile")).arg(&context);
    progress::step(&format!("Building {} with {engine}", options.tag), &mut command)?;
    progress::note(&format!("built image {}", options.tag));
    Ok(())
}
