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

    fn alive(&self) -> Answer {
        alive(self.turned.load(Relaxed), clock::now().0)
    }

    fn ready(&self, export: &ExportStats) -> Answer {
        ready(self.turned.load(Relaxed), clock::now().0, export.is_down())
    }
}

type Answer = Result<&'static str, &'static str>;

fn alive(turned: u64, now: u64) -> Answer {
    if turned != 0 && now.saturating_sub(turned) > STUCK {
        return Err("the main loop has been blocked for 30 s\n");
    }
    Ok("ok\n")
}

fn ready(turned: u64, now: u64, is_down: bool) -> Answer {
    if turned == 0 {
        return Err("attaching\n");
    }
    alive(turned, now)?;
    // An endpoint that is down is no reason to be replaced: the agent goes on, counts what it drops, and says so.
    Ok(if is_down {
        "ok, but the OTLP endpoint does not accept data\n"
    } else {
        "ok\n"
    })
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

fn answer(outcome: Answer) -> (StatusCode, &'static str) {
    match outcome {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    const NOW: u64 = 100 * STUCK;

    #[test]
    fn who_attaches_is_alive_and_not_ready_and_who_is_stuck_is_neither() {
        let (fine, stuck) = (Ok("ok\n"), Err("the main loop has been blocked for 30 s\n"));
        for (turned, live, is_ready) in [
            (0, fine, Err("attaching\n")),
            (NOW, fine, fine),
            (NOW - STUCK, fine, fine),
            (NOW - STUCK - 1, stuck, stuck),
            // A clock that is read before the turn is noted.
            (NOW + 1, fine, fine),
        ] {
            assert_eq!(alive(turned, NOW), live, "{turned}");
            assert_eq!(ready(turned, NOW, false), is_ready, "{turned}");
        }
        let down = Ok("ok, but the OTLP endpoint does not accept data\n");
        assert_eq!(ready(NOW, NOW, true), down);
        assert_eq!(ready(0, NOW, true), Err("attaching\n"));
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn probes_get_their_answers() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let health = Arc::new(Health::default());
        serve(free, health.clone(), Arc::default()).await.unwrap();
        assert_eq!(get(free, "/livez").await, (200, "ok\n".to_owned()));
        assert_eq!(get(free, "/readyz").await, (503, "attaching\n".to_owned()));
        health.turn();
        assert_eq!(get(free, "/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(free, "/metrics").await.0, 404);
        // The port is taken now, which is said.
        let again = serve(free, health, Arc::default()).await;
        assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }
}
