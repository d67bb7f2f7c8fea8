//! The main job: how many of an item are left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

/// How often the shelf is refilled.
const RESTOCK_EVERY: Duration = Duration::from_millis(100);

/// How many were taken of each item since the last refill.
pub type Shelf = Arc<Mutex<HashMap<u64, u64>>>;

#[derive(Serialize)]
pub struct Stock {
    id: u64,
    available: u64,
    reserved: u64,
}

pub async fn stock(State(shelf): State<Shelf>, Path(id): Path<u64>) -> Result<Json<Stock>, StatusCode> {
    let available = estimate(id);
    // A task of its own, so that a request crosses the scheduler as it does in services that fan out.
    let reserved = tokio::spawn(reserve(shelf, id))
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Stock {
        id,
        available: available.saturating_sub(reserved),
        reserved,
    }))
}

/// A few microseconds of arithmetic, the same answer for an id every time.
fn estimate(id: u64) -> u64 {
    let mut state = id | 1;
    for _ in 0..1000 {
        state = std::hint::black_box(state.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    1000 + state % 1000
}

async fn reserve(shelf: Shelf, id: u64) -> u64 {
    // Gives the worker away once, so that every reservation is polled twice.
    tokio::task::yield_now().await;
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = shelf.entry(id).or_default();
    *taken += 1;
    *taken
}

/// The background task: wakes by a timer, whether or not there are requests.
pub async fn restock(shelf: Shelf) {
    let mut ticks = tokio::time::interval(RESTOCK_EVERY);
    loop {
        ticks.tick().await;
        shelf.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
