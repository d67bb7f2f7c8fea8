//! rust-stock: the demo's axum/tokio service, with planted faults and its own account of itself.

mod faults;
mod oracle;
mod stock;

use std::io::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// How long requests in flight may go on after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Parser)]
#[command(version, about = "Demo stock service on axum and tokio, with planted faults")]
struct Options {
    /// Address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: String,
    /// Worker threads of the multi-thread runtime [default: one per CPU].
    #[arg(long, value_name = "N", conflicts_with = "current_thread")]
    workers: Option<NonZeroUsize>,
    /// Run on tokio's current-thread runtime.
    #[arg(long)]
    current_thread: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-stock: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let runtime = runtime(options)?;
    let served = runtime.block_on(serve(&options.listen));
    // Blocking tasks can't be cancelled, and dropping the runtime would wait for them without a bound.
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

fn runtime(options: &Options) -> Result<Runtime> {
    let mut builder = if options.current_thread {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    if let Some(workers) = options.workers {
        builder.worker_threads(workers.get());
    }
    oracle::enable_histograms(&mut builder);
    builder.enable_all().build().context("starting the tokio runtime")
}

async fn serve(listen: &str) -> Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen}"))?;
    let address = listener.local_addr().context("reading the listening address")?;
    println!("listening on {address}");
    std::io::stdout().flush().context("writing to standard output")?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stop.send_replace(true);
    });

    let shelf = stock::Shelf::default();
    tokio::spawn(stock::restock(shelf.clone()));
    let app = Router::new()
        .route("/stock/{id}", get(stock::stock))
        .route("/hash", get(faults::hash))
        .route("/sleep", get(faults::sleep))
        .route("/block", get(faults::block))
        .route("/debug/whywait", get(oracle::account))
        .with_state(shelf);
    let listener = listener.tap_io(|connection| {
        // Without it a small answer can wait 40 ms for the peer's delayed ACK; the service works without it all the same.
        let _ = connection.set_nodelay(true);
    });

    let (mut graceful, mut forced) = (stopped.clone(), stopped);
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = graceful.wait_for(|&stop| stop).await;
    });
    tokio::select! {
        result = server.into_future() => result.context("serving"),
        () = async { let _ = forced.wait_for(|&stop| stop).await; tokio::time::sleep(GRACE).await } => {
            eprintln!("rust-stock: requests still running {GRACE:?} after the signal to stop; dropped them");
            Ok(())
        }
    }
}
