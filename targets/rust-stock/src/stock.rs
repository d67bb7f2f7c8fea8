//! What the service is there for: stock levels and prices.

use std::{
    hash::{DefaultHasher, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

const PRICE_CHANGE: Duration = Duration::from_millis(100);

/// The state that all requests share.
pub(crate) struct Stock {
    /// Counts the price changes so far; prices derive from it.
    revision: AtomicU64,
}

#[derive(Serialize)]
pub(crate) struct Level {
    id: u32,
    quantity: u64,
    cents: u64,
}

impl Stock {
    /// Needs a running runtime: the prices change on a timer.
    pub(crate) fn start() -> Arc<Stock> {
        let stock = Arc::new(Stock {
            revision: AtomicU64::new(0),
        });
        tokio::spawn(change_prices(Arc::clone(&stock)));
        stock
    }
}

async fn change_prices(stock: Arc<Stock>) {
    let mut ticks = interval(PRICE_CHANGE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        stock.revision.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers `/stock/{id}`: one part of the work in a task of its own, as services fan out.
pub(crate) async fn level(State(stock): State<Arc<Stock>>, Path(id): Path<u32>) -> Result<Json<Level>, StatusCode> {
    let quantity = tokio::spawn(count_quantity(id));
    let revision = stock.revision.load(Ordering::Relaxed);
    let cents = 100 + mix(u64::from(id) ^ (revision / 100), 200) % 9_900;
    // Fails only if the task panicked.
    let quantity = quantity.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Level { id, quantity, cents }))
}

async fn count_quantity(id: u32) -> u64 {
    mix(id.into(), 200) % 500
}

#[derive(Deserialize)]
pub(crate) struct Rounds {
    #[serde(default = "default_rounds")]
    rounds: u32,
}

fn default_rounds() -> u32 {
    100_000
}

/// Answers `/hash`: work for the blocking pool.
pub(crate) async fn hash(Query(Rounds { rounds }): Query<Rounds>) -> Result<String, StatusCode> {
    let hash = tokio::task::spawn_blocking(move || mix(u64::from(rounds), rounds)).await;
    let hash = hash.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(format!("{hash:016x}\n"))
}

/// Computes something that takes `rounds` × some ns and depends on `seed`.
fn mix(seed: u64, rounds: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    for round in 0..rounds {
        hasher.write_u64(seed ^ u64::from(round));
    }
    hasher.finish()
}
