//! `cargo xtask`: everything this project does beside running. One file a command, each with `Options` and `run`.

mod arch;
mod bench;
mod build;
mod checks;
mod demo;
mod demo_build;
mod fuzz;
mod image;
mod kernels;
mod matrix;
mod offsets;
mod progress;
mod run;
mod setup;
mod sh;
mod test;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, runs and tests whywait")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find out what this machine lacks and install it
    Setup(setup::Options),
    /// Build the agent and the demo services
    Build(build::Options),
    /// Start the demo services under load and watch them with the agent
    Run(run::Options),
    /// Check what the compiler cannot: the mirror rule, file sizes, words, licences
    Tidy(tidy::Options),
    /// Run every check and test
    Test(test::Options),
    /// Feed the readers of executables and recordings with hostile bytes
    Fuzz(fuzz::Options),
    /// Measure what watching costs
    Bench(bench::Options),
    /// Read where the Go runtime's fields are in builds of every supported version
    Offsets(offsets::Options),
    /// Build a FROM-scratch container image of the static agent
    Image(image::Options),
}

fn main() -> std::process::ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            // The causes in one line; a backtrace of ours helps nobody who wanted a build.
            eprintln!("error: {why:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(options) => setup::run(options),
        Command::Build(options) => build::run(options),
        Command::Run(options) => run::run(options),
        Command::Tidy(options) => tidy::run(options),
        Command::Test(options) => test::run(options),
        Command::Fuzz(options) => fuzz::run(options),
        Command::Bench(options) => bench::run(options),
        Command::Offsets(options) => offsets::run(options),
        Command::Image(options) => image::run(options),
    }
}
