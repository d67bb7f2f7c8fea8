//! Planted faults with known answers.

use std::time::{Duration, Instant};

use axum::{Json, extract::Query, http::StatusCode};
use serde::{Deserialize, Serialize};

use crate::account::monotonic_ns;

/// Bounds every fault: a mistyped URL must not take the service away for long.
const MAX_MS: u64 = 60_000;

/// What a fault says about itself, on CLOCK_MONOTONIC.
#[derive(Serialize)]
pub(crate) struct Waited {
    waited_for: &'static str,
    begin_ns: u64,
    end_ns: u64,
    /// The tokio task that waited or blocked.
    task_id: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Sleep {
    #[serde(default = "default_sleep_ms")]
    ms: u64,
    #[serde(default = "once")]
    n: u64,
}

fn once() -> u64 {
    1
}

fn default_sleep_ms() -> u64 {
    30
}

/// Answers `/sleep`: a timer, n times; no worker is held.
pub(crate) async fn sleep(Query(Sleep { ms, n }): Query<Sleep>) -> Result<Json<Waited>, Refusal> {
    bounded(ms.saturating_mul(n))?;
    let begin_ns = monotonic_ns();
    for _ in 0..n {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    Ok(Json(waited("timer", begin_ns)))
}

#[derive(Deserialize)]
pub(crate) struct Block {
    #[serde(default = "default_block_ms")]
    ms: u64,
    #[serde(default)]
    how: How,
}

fn default_block_ms() -> u64 {
    25
}

/// How a worker is held: off the core or on it.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    #[default]
    Sleep,
    Spin,
}

/// Answers `/block`: a task holds its worker in one long poll.
pub(crate) async fn block(Query(Block { ms, how }): Query<Block>) -> Result<Json<Waited>, Refusal> {
    let duration = bounded(ms)?;
    let forecast = tokio::spawn(recompute_forecast(duration, how)).await;
    let waited = forecast.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(Json(waited))
}

/// The planted fault itself: an async fn that never awaits.
async fn recompute_forecast(duration: Duration, how: How) -> Waited {
    let begin_ns = monotonic_ns();
    match how {
        How::Sleep => std::thread::sleep(duration),
        How::Spin => {
            let begin = Instant::now();
            while begin.elapsed() < duration {
                std::hint::spin_loop();
            }
        }
    }
    waited("blocked worker", begin_ns)
}

fn waited(waited_for: &'static str, begin_ns: u64) -> Waited {
    Waited {
        waited_for,
        begin_ns,
        end_ns: monotonic_ns(),
        task_id: tokio::task::try_id().map(|id| id.to_string()),
    }
}

type Refusal = (StatusCode, String);

fn bounded(ms: u64) -> Result<Duration, Refusal> {
    if ms > MAX_MS {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("ms={ms}: at most {MAX_MS} is allowed\n"),
        ));
    }
    Ok(Duration::from_millis(ms))
}
