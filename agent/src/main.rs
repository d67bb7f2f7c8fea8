//! The `whywait` command.

use agent::{
    cli::{Cli, Command},
    exit::{Exit, exit_of},
    pipeline, recording,
};
use clap::Parser as _;

fn main() -> Exit {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_target(false)
        .format_timestamp_secs()
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("whywait: cannot start: {error}");
            return Exit::Failed;
        }
    };
    let outcome = runtime.block_on(async {
        match &cli.command {
            Command::Run(args) => pipeline::run(args, None).await,
            Command::Record(args) => pipeline::run(&args.run, Some(&args.file)).await,
            Command::Replay(args) => match pipeline::export_config(&args.export) {
                Ok(config) => recording::replay::run(&args.file, config).await,
                Err(error) => Err(error),
            },
            Command::Doctor(args) => agent::doctor::run(args),
            Command::Selftest(args) => agent::selftest::run(args).await,
        }
    });
    // A sink that still hangs in a blocking call does not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("whywait: {error:#}");
            exit_of(&error)
        }
    }
}
