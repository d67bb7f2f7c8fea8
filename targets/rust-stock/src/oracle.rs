//! The runtime's own account of itself, for tests to compare with what was seen from outside.

use axum::Json;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle, RuntimeMetrics};

/// Turns on tokio's histograms of poll times and of waits from wake to poll, where this build has them.
#[cfg(tokio_unstable)]
pub fn enable_histograms(builder: &mut Builder) {
    use tokio::runtime::{HistogramConfiguration, LogHistogram};
    let scale = || HistogramConfiguration::log(LogHistogram::default());
    builder
        .enable_metrics_poll_time_histogram()
        .metrics_poll_time_histogram_configuration(scale());
    #[cfg(feature = "schedule-latency")]
    builder
        .enable_metrics_schedule_latency_histogram()
        .metrics_schedule_latency_histogram_configuration(scale());
}

#[cfg(not(tokio_unstable))]
pub fn enable_histograms(_builder: &mut Builder) {}

/// `GET /debug/whywait`. The clocks are read first: what the counters hold is never older than `monotonic_ns`.
pub async fn account() -> Json<Value> {
    let (monotonic_ns, process_cpu_ns) = (clock_ns(ClockId::Monotonic), clock_ns(ClockId::ProcessCPUTime));
    let metrics = Handle::current().metrics();
    let workers: Vec<Value> = (0..metrics.num_workers())
        .map(|worker| describe_worker(&metrics, worker))
        .collect();
    let mut account = json!({
        "service": "rust-stock",
        "pid": std::process::id(),
        "monotonic_ns": monotonic_ns,
        "process_cpu_ns": process_cpu_ns,
        "unstable": cfg!(tokio_unstable),
        "num_workers": metrics.num_workers(),
        "num_alive_tasks": metrics.num_alive_tasks(),
        "global_queue_depth": metrics.global_queue_depth(),
        "workers": workers,
    });
    add_unstable(&metrics, &mut account);
    Json(account)
}

fn describe_worker(metrics: &RuntimeMetrics, worker: usize) -> Value {
    let mut value = json!({
        "worker": worker,
        "busy_ns": nanoseconds(metrics.worker_total_busy_duration(worker)),
        "park_count": metrics.worker_park_count(worker),
        "park_unpark_count": metrics.worker_park_unpark_count(worker),
    });
    add_unstable_worker(metrics, worker, &mut value);
    value
}

#[cfg(tokio_unstable)]
fn add_unstable(metrics: &RuntimeMetrics, account: &mut Value) {
    account["spawned_tasks_count"] = metrics.spawned_tasks_count().into();
    account["num_blocking_threads"] = metrics.num_blocking_threads().into();
}

#[cfg(tokio_unstable)]
fn add_unstable_worker(metrics: &RuntimeMetrics, worker: usize, value: &mut Value) {
    value["poll_count"] = metrics.worker_poll_count(worker).into();
    value["steal_count"] = metrics.worker_steal_count(worker).into();
    value["noop_count"] = metrics.worker_noop_count(worker).into();
    value["mean_poll_ns"] = nanoseconds(metrics.worker_mean_poll_time(worker)).into();
    value["poll_time_histogram"] = buckets(metrics.poll_time_histogram_num_buckets(), |bucket| {
        (
            metrics.poll_time_histogram_bucket_range(bucket),
            metrics.poll_time_histogram_bucket_count(worker, bucket),
        )
    });
    #[cfg(feature = "schedule-latency")]
    {
        value["schedule_latency_histogram"] = buckets(metrics.schedule_latency_histogram_num_buckets(), |bucket| {
            (
                metrics.schedule_latency_histogram_bucket_range(bucket),
                metrics.schedule_latency_histogram_bucket_count(worker, bucket),
            )
        });
    }
}

/// Empty buckets are left out: there are over a hundred a worker.
#[cfg(tokio_unstable)]
fn buckets(count: usize, read: impl Fn(usize) -> (std::ops::Range<std::time::Duration>, u64)) -> Value {
    (0..count)
        .map(read)
        .filter(|&(_, count)| count > 0)
        .map(|(range, count)| {
            json!({ "from_ns": nanoseconds(range.start), "to_ns": nanoseconds(range.end), "count": count })
        })
        .collect()
}

#[cfg(not(tokio_unstable))]
fn add_unstable(_metrics: &RuntimeMetrics, _account: &mut Value) {}

#[cfg(not(tokio_unstable))]
fn add_unstable_worker(_metrics: &RuntimeMetrics, _worker: usize, _value: &mut Value) {}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn clock_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
