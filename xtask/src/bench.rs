//! `cargo xtask bench`: what watching costs.

mod overhead;
mod programs;
mod service;
mod stats;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Requests per second and CPU per request of the demo services, with and without the agent
    Overhead(overhead::Options),
}

pub(crate) fn run(options: Options) -> Result<()> {
    match options.what {
        What::Overhead(options) => overhead::run(options),
    }
}
