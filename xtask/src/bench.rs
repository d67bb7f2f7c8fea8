//! `cargo xtask bench`: what watching costs.

mod overhead;
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
    /// Throughput, CPU per request and latency of the demo services, with and without the agent
    Overhead(overhead::Options),
}

pub(crate) fn run(options: Options) -> Result<()> {
    match options.what {
        What::Overhead(options) => overhead::run(options),
    }
}
