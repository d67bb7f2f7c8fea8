//! The service's own account: tokio's runtime metrics, the tests' oracle. Most of them exist only in
//! builds with `--cfg tokio_unstable`; the answer says which kind of build it is.

use axum::{Json, http::StatusCode};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    },
    time::{ClockId, clock_gettime},
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle, RuntimeMetrics};

/// Turns on what the runtime doesn't measure by default.
#[cfg(tokio_unstable)]
pub(crate) fn enable_histograms(builder: &mut Builder) {
    use std::time::Duration;
    use tokio::runtime::{HistogramConfiguration, LogHistogram};

    // Eight buckets to a power of two: finer than the factor that the tests allow.
    let fine = || {
        HistogramConfiguration::log(
            LogHistogram::builder()
                .min_value(Duration::from_nanos(64))
                .max_value(Duration::from_secs(60))
                .precision_exact(3)
                .build(),
        )
    };
    builder
        .enable_metrics_poll_time_histogram()
        .metrics_poll_time_histogram_configuration(fine())
        .enable_metrics_schedule_latency_histogram()
        .metrics_schedule_latency_histogram_configuration(fine());
    crate::polls::hook_into(builder);
}

#[cfg(not(tokio_unstable))]
pub(crate) fn enable_histograms(_: &mut Builder) {}

/// Answers `/debug/whywait`. The figures were read between `mono_ns` and `mono_after_ns`.
pub(crate) async fn account() -> Result<Json<Value>, (StatusCode, String)> {
    let metrics = Handle::current().metrics();
    let mono_ns = monotonic_ns();
    let mut account = json!({
        "pid": std::process::id(),
        "unstable": cfg!(tokio_unstable),
        "mono_ns": mono_ns,
        "cpu_ns": process_cpu_ns().map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?,
        "num_workers": metrics.num_workers(),
        "num_alive_tasks": metrics.num_alive_tasks(),
        "global_queue_depth": metrics.global_queue_depth(),
        "workers": (0..metrics.num_workers()).map(|w| worker(&metrics, w)).collect::<Vec<_>>(),
    });
    add_unstable(&metrics, &mut account);
    account["mono_after_ns"] = monotonic_ns().into();
    Ok(Json(account))
}

fn worker(metrics: &RuntimeMetrics, worker: usize) -> Value {
    let mut account = json!({
        "total_busy_ns": nanos(metrics.worker_total_busy_duration(worker)),
        "park_count": metrics.worker_park_count(worker),
        "park_unpark_count": metrics.worker_park_unpark_count(worker),
    });
    add_unstable_worker(metrics, worker, &mut account);
    account
}

#[cfg(tokio_unstable)]
fn add_unstable(metrics: &RuntimeMetrics, account: &mut Value) {
    account["task_polls"] = crate::polls::account();
    account["spawned_tasks_count"] = metrics.spawned_tasks_count().into();
    account["remote_schedule_count"] = metrics.remote_schedule_count().into();
    account["num_blocking_threads"] = metrics.num_blocking_threads().into();
    account["budget_forced_yield_count"] = metrics.budget_forced_yield_count().into();
}

#[cfg(not(tokio_unstable))]
fn add_unstable(_: &RuntimeMetrics, _: &mut Value) {}

#[cfg(tokio_unstable)]
fn add_unstable_worker(metrics: &RuntimeMetrics, worker: usize, account: &mut Value) {
    account["poll_count"] = metrics.worker_poll_count(worker).into();
    account["mean_poll_ns"] = nanos(metrics.worker_mean_poll_time(worker)).into();
    account["steal_count"] = metrics.worker_steal_count(worker).into();
    account["local_schedule_count"] = metrics.worker_local_schedule_count(worker).into();
    account["noop_count"] = metrics.worker_noop_count(worker).into();
    account["overflow_count"] = metrics.worker_overflow_count(worker).into();
    account["poll_time_histogram"] = histogram(
        metrics.poll_time_histogram_num_buckets(),
        |bucket| metrics.poll_time_histogram_bucket_range(bucket),
        |bucket| metrics.poll_time_histogram_bucket_count(worker, bucket),
    );
    account["schedule_latency_histogram"] = histogram(
        metrics.schedule_latency_histogram_num_buckets(),
        |bucket| metrics.schedule_latency_histogram_bucket_range(bucket),
        |bucket| metrics.schedule_latency_histogram_bucket_count(worker, bucket),
    );
}

#[cfg(not(tokio_unstable))]
fn add_unstable_worker(_: &RuntimeMetrics, _: usize, _: &mut Value) {}

/// Lists the buckets that hold something, as `[from_ns, to_ns, count]`, `to_ns` excluded.
#[cfg(tokio_unstable)]
fn histogram(
    buckets: usize,
    range: impl Fn(usize) -> std::ops::Range<std::time::Duration>,
    count: impl Fn(usize) -> u64,
) -> Value {
    let filled = (0..buckets)
        .map(|bucket| (range(bucket), count(bucket)))
        .filter(|(_, n)| *n > 0);
    filled
        .map(|(range, n)| json!([nanos(range.start), nanos(range.end), n]))
        .collect()
}

fn nanos(duration: std::time::Duration) -> u64 {
    // The last bucket's end is beyond what 64 bits hold.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of the kernel's and the agent's events.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    u64::try_from(now.num_nanoseconds()).expect("a monotonic clock begins at 0")
}

/// CPU time, user and system, that the process has used.
fn process_cpu_ns() -> nix::Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() * 1000)
}
