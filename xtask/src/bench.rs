//! `cargo xtask bench`: what watching costs.

mod coverage;
mod foreign;
mod ingest;
mod inspect;
mod overhead;
mod peers;
mod plot;
mod programs;
mod service;
mod soak;
mod start;
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
    /// Requests and switches that are counted, of those that there were, under the default budget
    Coverage(coverage::Options),
    /// Time from the agent's start to its first signal, with few and many targets
    Start(start::Options),
    /// Time to inspect executables of several sizes
    Inspect(inspect::Options),
    /// Events a second that the agent takes in, from a recording
    Ingest(ingest::Options),
    /// Events a second that the ring buffer carries before the first is lost
    Ringbuf(ingest::RingOptions),
    /// What threads pay that are no target's
    Foreign(foreign::Options),
    /// What a hit of each kernel program costs, beside another build of the agent
    Programs(programs::Options),
    /// The agent's memory and losses over half an hour of full load
    Soak(soak::Options),
    /// Cost of other tools of its kind, as far as they are installed
    Peers(peers::Options),
}

pub(crate) fn run(options: Options) -> Result<()> {
    match options.what {
        What::Overhead(options) => overhead::run(options),
        What::Coverage(options) => coverage::run(options),
        What::Start(options) => start::run(options),
        What::Inspect(options) => inspect::run(options),
        What::Ingest(options) => ingest::run(options),
        What::Ringbuf(options) => ingest::ringbuf(options),
        What::Foreign(options) => foreign::run(options),
        What::Programs(options) => programs::run(options),
        What::Soak(options) => soak::run(&options),
        What::Peers(options) => peers::run(options),
    }
}
