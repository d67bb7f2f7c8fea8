//! Endpoints that take connections, and nothing comes back.

use std::{sync::Arc, time::Duration};

use super::{Receiver, batch, config, exporter, settled};
use crate::export::Cause;

/// Accepts connections, and says nothing on them for ever: as a receiver that hangs.
fn silent() -> (String, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}

#[tokio::test]
async fn an_endpoint_that_accepts_and_never_answers_is_given_up() {
    for protocol in ["grpc", "http/protobuf"] {
        let (url, _listener) = silent();
        let env = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "50"),
        ];
        let exporter = exporter(&config(&url, &env));
        exporter.send(batch(10, 4));
        let stats = settled(exporter).await;
        assert_eq!(
            (stats.total_sent(), stats.dropped_by(Cause::Unreachable)),
            (0, 14),
            "{protocol}"
        );
        assert!(stats.is_down());
    }
}

/// Passes bytes on between who connects and `to`; connections that were made before `hole` was set are black holes from then on:
/// open, and nothing comes through, as when a firewall has forgotten them.
async fn firewall(to: String, hole: Arc<tokio::sync::watch::Sender<u64>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = to
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(&to).await.unwrap();
            let mut hole = hole.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = hole.changed() => std::future::pending().await,
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_connection_that_became_a_black_hole_is_left() {
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::default();
        let (url, path) = match protocol {
            "grpc" => (receiver.serve().await, ""),
            _ => (receiver.serve_http().await, "/base"),
        };
        let hole = Arc::new(tokio::sync::watch::Sender::new(0));
        let url = firewall(url, hole.clone()).await + path;
        let env = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ];
        let exporter = exporter(&config(&url, &env));
        exporter.send(batch(10, 4));
        while exporter.stats.total_sent() < 14 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        hole.send_modify(|count| *count += 1);
        exporter.send(batch(10, 4));
        let stats = settled(exporter).await;
        assert_eq!((stats.total_sent(), stats.total_dropped()), (28, 0), "{protocol}");
        assert!(stats.total_retries() > 0);
    }
}
