//! rust-stock is the demo's tokio service and the agent's test bed: stock levels for go-shop, planted
//! faults whose cost is known, and an account of itself that the tests compare the agent's figures with.

mod account;
mod faults;
#[cfg(tokio_unstable)]
mod polls;
mod stock;

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    routing::get,
    serve::{Listener as _, ListenerExt as _},
};
use clap::Parser;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

/// How long a slow request may hold up the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The demo's stock service, on tokio.
#[derive(Parser)]
struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: String,
    /// Worker threads of the runtime; default: one a core
    #[arg(long, conflicts_with = "current_thread", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Run on a current_thread runtime
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

fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = runtime(options).context("starting the tokio runtime")?;
    let served = runtime.block_on(serve(&options.listen));
    // Blocking closures can't be cancelled; they end with the process.
    runtime.shutdown_background();
    served
}

fn runtime(options: &Options) -> std::io::Result<Runtime> {
    let mut builder = if options.current_thread {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    if let Some(workers) = options.workers {
        builder.worker_threads(workers.into());
    }
    account::enable_histograms(&mut builder);
    builder.enable_all().build()
}

async fn serve(listen: &str) -> anyhow::Result<()> {
    // Before anything is announced, so that no signal meets the default action afterwards.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stopping, mut stop) = tokio::sync::watch::channel(());

    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}"))?;
    let listener = listener.tap_io(|connection| {
        // An answer leaves at once, or Nagle's delays would stand in the latencies. It fails only for a
        // connection that is gone already.
        let _ = connection.set_nodelay(true);
    });
    let address = listener.local_addr()?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {address}")?;
    stdout.flush()?;

    let server = axum::serve(listener, routes()).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is the end as well.
        let _ = stop.changed().await;
    });
    let mut server = tokio::spawn(async move { server.await });
    tokio::select! {
        ended = &mut server => return Ok(ended??),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(stopping);
    match tokio::time::timeout(SHUTDOWN_GRACE, server).await {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            anyhow::bail!("requests still running {SHUTDOWN_GRACE:?} after the signal were cut off")
        }
    }
}

fn routes() -> Router {
    let stock = stock::Stock::start();
    Router::new()
        .route("/stock/{id}", get(stock::level))
        .route("/hash", get(stock::hash))
        .route("/sleep", get(faults::sleep))
        .route("/block", get(faults::block))
        .route("/debug/whywait", get(account::account))
        .with_state(stock)
}
