//! Planted faults: each waits, blocks or computes for a time the caller chooses, and answers with the time it took.

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::Query;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

/// The longest a fault may last; a typing error shall not take the demo away for an hour.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Serialize)]
pub struct Took {
    /// Tokio's id of the task at fault, when it isn't the connection's own.
    task_id: Option<String>,
    took_ns: u64,
}

type Answer = Result<Json<Took>, (StatusCode, String)>;

#[derive(Deserialize)]
pub struct Hash {
    #[serde(default = "Hash::default_rounds")]
    rounds: u32,
}

impl Hash {
    fn default_rounds() -> u32 {
        100_000
    }
}

pub async fn hash(Query(query): Query<Hash>) -> Answer {
    let start = Instant::now();
    tokio::task::spawn_blocking(move || {
        let mut hasher = DefaultHasher::new();
        for round in 0..query.rounds {
            hasher.write_u32(std::hint::black_box(round));
        }
        std::hint::black_box(hasher.finish())
    })
    .await
    .map_err(panicked)?;
    Ok(took(None, start.elapsed()))
}

#[derive(Deserialize)]
pub struct Sleep {
    ms: u64,
}

/// Waits without holding a worker: a slow peer, but no fault of the runtime's.
pub async fn sleep(Query(query): Query<Sleep>) -> Answer {
    let wait = bounded(query.ms)?;
    let start = Instant::now();
    tokio::time::sleep(wait).await;
    Ok(took(None, start.elapsed()))
}

#[derive(Deserialize)]
pub struct Block {
    #[serde(default = "Block::default_ms")]
    ms: u64,
    #[serde(default)]
    how: How,
}

impl Block {
    fn default_ms() -> u64 {
        25
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    #[default]
    Sleep,
    Spin,
}

/// The classic mistake: an async task that keeps its worker for `ms`.
pub async fn block(Query(query): Query<Block>) -> Answer {
    let time = bounded(query.ms)?;
    let task = tokio::spawn(recompute_forecast(time, query.how));
    let id = task.id().to_string();
    let spent = task.await.map_err(panicked)?;
    Ok(took(Some(id), spent))
}

async fn recompute_forecast(time: Duration, how: How) -> Duration {
    let start = Instant::now();
    match how {
        How::Sleep => std::thread::sleep(time),
        How::Spin => {
            while start.elapsed() < time {
                std::hint::spin_loop();
            }
        }
    }
    start.elapsed()
}

fn bounded(ms: u64) -> Result<Duration, (StatusCode, String)> {
    let time = Duration::from_millis(ms);
    if time > LONGEST {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("ms={ms} is too long: at most {}\n", LONGEST.as_millis()),
        ));
    }
    Ok(time)
}

fn took(task_id: Option<String>, time: Duration) -> Json<Took> {
    Json(Took {
        task_id,
        took_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
    })
}

fn panicked(error: tokio::task::JoinError) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}
