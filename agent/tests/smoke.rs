//! The shortest whole way: a Go and a tokio service, spans and metrics of both.

mod common;

use common::{Agent, attribute, load, privileged, shop, stock};

#[test]
fn both_runtimes_are_watched_and_named() {
    if !privileged() {
        return;
    }
    let stock = stock(false);
    let shop = shop(Some(&stock), &[("OTEL_SERVICE_NAME", "the-shop")]);
    let agent = Agent::run(
        &["--pid", &shop.pid().to_string(), "--pid", &stock.pid().to_string()],
        2,
    );
    load(&[shop.url("/item?id={n}")], 100, 3, 4);
    shop.get("/gc");
    stock.get("/block?ms=25");
    let output = agent.stop();
    assert!(output.status.success(), "{}", output.said);
    let cycles = output.spans("the-shop");
    assert!(
        cycles
            .iter()
            .any(|span| span["name"] == "go.gc.cycle" && attribute(span, "go.gc.forced") == Some(true.into()))
    );
    let polls = output.spans("rust-stock");
    let named = |span: &serde_json::Value| {
        attribute(span, "tokio.task.future").is_some_and(|name| name.as_str().unwrap().contains("recompute_forecast"))
    };
    assert!(polls.iter().any(named), "{polls:?}");
    for (service, metric) in [
        ("the-shop", "go.goroutine.count"),
        ("the-shop", "go.goroutine.runnable.duration"),
        ("the-shop", "whywait.server.request.duration"),
        ("the-shop", "whywait.client.request.duration"),
        ("the-shop", "whywait.thread.run_queue.duration"),
        ("rust-stock", "tokio.task.poll.duration"),
        ("rust-stock", "tokio.task.wake_to_poll.duration"),
        ("whywait", "whywait.events.received"),
    ] {
        assert!(!output.points(service, metric).is_empty(), "no {metric} of {service}");
    }
}
