//! /livez and /readyz, for a DaemonSet's probes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::{clock, export::ExportStats};

/// The pipeline's loop turns at least once a second; without a turn for this long it is stuck, ns.
const STUCK: u64 = 30_000_000_000;

/// What the endpoints tell.
#[derive(Debug, Default)]
pub struct Health {
    /// CLOCK_MONOTONIC, ns: the pipeline's last turn; 0 before it was ready.
    turned: AtomicU64,
}

impl Health {
    /// The pipeline is at work.
    pub fn turn(&self) {
        self.turned.store(clock::now().0, Relaxed);
    }

    fn alive(&self) -> Result<&'static str, &'static str> {
        let turned = self.turned.load(Relaxed);
        if turned != 0 && clock::now().0.saturating_sub(turned) > STUCK {
            return Err("the pipeline has not turned for 30 s\n");
        }
        Ok("ok\n")
    }

    fn ready(&self, export: &ExportStats) -> Result<&'static str, &'static str> {
        if self.turned.load(Relaxed) == 0 {
            return Err("attaching\n");
        }
        self.alive()?;
        // An endpoint that is down is no reason to be replaced: the agent goes on, counts what it drops, and says so.
        Ok(if export.is_down() {
            "ok, but the OTLP endpoint does not take data\n"
        } else {
            "ok\n"
        })
    }
}

/// Serves until the agent ends.
pub async fn serve(address: SocketAddr, health: Arc<Health>, export: Arc<ExportStats>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let live = health.clone();
    let app = Router::new()
        .route("/livez", get(move || async move { answer(live.alive()) }))
        .route("/readyz", get(move || async move { answer(health.ready(&export)) }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

fn answer(outcome: Result<&'static str, &'static str>) -> (StatusCode, &'static str) {
    match outcome {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}
