//! The `whywait` command.

use std::time::Duration;

use agent::{
    cli::{Cli, Command},
    commands::{doctor, goroutines, profile, replay, selftest},
    exit::{Exit, exit_of},
    looks::give_way,
    pipeline,
    surface::output,
};
use clap::Parser as _;
use tokio::runtime::{Builder, Handle};

/// How long what still runs may take to end.
const LEAVE: Duration = Duration::from_secs(1);

fn main() -> Exit {
    let cli = Cli::parse();
    output::begin_log(cli.command.kernel_log());
    let exit = run_to_end(&cli.command);
    output::end_log(LEAVE);
    exit
}

fn run_to_end(command: &Command) -> Exit {
    let (runtime, aside) = match (
        Builder::new_current_thread().enable_all().build(),
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(give_way)
            .build(),
    ) {
        (Ok(runtime), Ok(aside)) => (runtime, aside),
        (Err(error), _) | (_, Err(error)) => {
            output::complain(format_args!("cannot start: {error}"));
            return Exit::Failed;
        }
    };
    let outcome = runtime.block_on(run(command, aside.handle()));
    // A sink that still hangs in a blocking call does not hold the process.
    runtime.shutdown_timeout(LEAVE);
    aside.shutdown_timeout(LEAVE);
    match outcome {
        // Of a command that is there to print.
        Ok(Exit::Ok) if output::is_broken() => Exit::Failed,
        Ok(exit) => exit,
        Err(error) => {
            output::complain(format_args!("{error:#}"));
            exit_of(&error)
        }
    }
}

/// The pipeline has a thread of its own: each of its turns wakes one thread, and those are up to a hundred a second, on cores that
/// services need. What sends and serves runs `aside`, gives way to services, and never keeps a window open.
async fn run(command: &Command, aside: &Handle) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => pipeline::run(args, None, aside).await,
        Command::Record(args) => pipeline::run(&args.run, Some(&args.file), aside).await,
        Command::Replay(args) => replay::run(&args.file, pipeline::export_config(&args.export)?, aside).await,
        Command::Doctor(args) => doctor::run(args),
        Command::Selftest(args) => selftest::run(args).await,
        Command::Goroutines(args) => goroutines::run(args),
        Command::Profile(args) => profile::run(args).await,
    }
}
