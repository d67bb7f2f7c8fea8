//! Stage export: batches → OTLP. Each sink has a bounded queue and a task of its own; nothing upstream ever waits for it.

pub mod config;
mod encode;
mod jsonl;
mod otlp;
mod profiles;
mod queue;
pub mod stats;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    profiles::v1development::{Profile, ProfilesDictionary},
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

pub use config::OtlpConfig;
pub use stats::{Cause, ExportStats, Signal};

use queue::Queue;

use crate::{
    clock::Anchor,
    model::{Batch, Point, Resource},
};

/// Where to.
#[derive(Clone, Debug)]
pub struct Config {
    pub otlp: Option<OtlpConfig>,
    pub files: Option<FilesConfig>,
}

/// JSON lines.
#[derive(Clone, Debug)]
pub struct FilesConfig {
    pub directory: PathBuf,
    /// Bytes after which a file is rotated.
    pub rotate: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    Config(#[from] config::ConfigError),
    #[error("cannot write to {path}: {source}")]
    Files { path: PathBuf, source: std::io::Error },
}

/// Sends profiles of a process; an error is what people are told.
pub async fn send_profiles(
    endpoint: &config::Endpoint,
    resource: &Resource,
    profiles: Vec<Profile>,
    dictionary: ProfilesDictionary,
) -> Result<(), String> {
    otlp::send_profiles(endpoint, profiles::request(resource, profiles, dictionary)).await
}

/// A batch's spans as the requests that would carry them, with wall times by `anchor`.
pub fn trace_requests(batch: Batch, anchor: Anchor) -> Vec<ExportTraceServiceRequest> {
    let (run, now) = (anchor, anchor);
    let times = Times { run, now };
    let requests = encode::trace_requests(&Outgoing { batch, times });
    requests.into_iter().map(|(request, _)| request).collect()
}

/// The sinks' front.
pub struct Exporter {
    sinks: Vec<Sink>,
    run: Anchor,
    /// Times are not the present's.
    fixed: bool,
    pub stats: Arc<ExportStats>,
    /// Files that are written, for the closing summary.
    pub files: Vec<PathBuf>,
}

/// A batch and its wall times: every sink says the same.
struct Outgoing {
    batch: Batch,
    times: Times,
}

/// How the batch's times become wall times.
#[derive(Clone, Copy)]
struct Times {
    /// Taken once a run: the begin of a series may not move from one export to the next, which receivers take for a
    /// restart.
    run: Anchor,
    /// Taken for this batch: follows the wall clock when that is set.
    now: Anchor,
}

impl Times {
    /// Wall time of the begin of a point's series; never after the point itself, also when the wall clock was set back.
    fn begin(&self, point: &Point) -> u64 {
        self.run.wall(point.start).min(self.now.wall(point.time))
    }
}

struct Sink {
    signals: &'static [Signal],
    queue: Queue,
    task: JoinHandle<()>,
}

impl Sink {
    /// Spans, points and events of a batch that are its business.
    fn items(&self, batch: &Batch) -> u64 {
        self.signals.iter().map(|signal| signal.count(batch)).sum()
    }
}

impl Exporter {
    /// Starts the sinks, `aside` from the caller's runtime. An endpoint that is down is no error: it is tried again.
    pub fn start(config: Config, aside: &Handle) -> Result<Self, ExportError> {
        // Clients are made in the runtime that drives them.
        let _entered = aside.enter();
        let stats = Arc::new(ExportStats::default());
        let (mut sinks, mut files) = (Vec::new(), Vec::new());
        let endpoints = config.otlp.iter().flat_map(|otlp| [&otlp.traces, &otlp.metrics]);
        // Those of events have their own room.
        let count = endpoints.flatten().count() + usize::from(config.files.is_some());
        if let Some(otlp) = &config.otlp {
            const OWN: [&[Signal]; 3] = [&[Signal::Traces], &[Signal::Metrics], &[Signal::Logs]];
            for (signals, endpoint) in OWN.into_iter().zip([&otlp.traces, &otlp.metrics, &otlp.logs]) {
                let Some(endpoint) = endpoint else { continue };
                let worker = otlp::Worker::new(signals[0], endpoint, stats.clone())?;
                let (queue, waiting) = match signals[0] {
                    Signal::Logs => queue::of_events(),
                    Signal::Traces | Signal::Metrics => queue::queue(count),
                };
                sinks.push(Sink {
                    signals,
                    queue,
                    task: aside.spawn(worker.run(waiting)),
                });
            }
        }
        if let Some(config) = config.files {
            let writer = jsonl::Writer::open(&config, stats.clone())?;
            files = writer.paths();
            let (queue, waiting) = queue::queue(count);
            sinks.push(Sink {
                signals: &Signal::ALL,
                queue,
                task: aside.spawn_blocking(move || writer.run(waiting)),
            });
        }
        let run = Anchor::take();
        Ok(Self {
            sinks,
            run,
            fixed: false,
            stats,
            files,
        })
    }

    /// Makes all wall times by `anchor`: of a recording's, not of the present's.
    #[must_use]
    pub fn at(mut self, anchor: Anchor) -> Self {
        (self.run, self.fixed) = (anchor, true);
        self
    }

    /// Hands a batch to every sink, waiting for room.
    pub async fn send_all(&self, batch: Batch) {
        let (bytes, outgoing) = (batch.bytes(), self.outgoing(batch));
        for sink in &self.sinks {
            let items = sink.items(&outgoing.batch);
            if items == 0 {
                continue;
            }
            self.stats.produced(items);
            if let Err(cause) = sink.queue.wait(outgoing.clone(), bytes).await {
                self.stats.dropped(items, cause);
            }
        }
    }

    /// Hands a batch to every sink that has room, and counts what has none.
    pub fn send(&self, batch: Batch) {
        if batch.spans.is_empty() && batch.metrics.is_empty() && batch.events.is_empty() {
            return;
        }
        let (bytes, outgoing) = (batch.bytes(), self.outgoing(batch));
        for sink in &self.sinks {
            let items = sink.items(&outgoing.batch);
            if items == 0 {
                continue;
            }
            self.stats.produced(items);
            if let Err(cause) = sink.queue.offer(outgoing.clone(), bytes) {
                self.stats.dropped(items, cause);
            }
        }
    }

    fn outgoing(&self, batch: Batch) -> Arc<Outgoing> {
        let now = if self.fixed { self.run } else { Anchor::take() };
        let times = Times { run: self.run, now };
        Arc::new(Outgoing { batch, times })
    }

    /// Sends what is queued, for at most `deadline`; what is left then is counted as dropped.
    pub async fn shutdown(self, deadline: Duration) -> Arc<ExportStats> {
        self.stats.begin_shutdown();
        let (queues, tasks): (Vec<_>, Vec<_>) = self.sinks.into_iter().map(|sink| (sink.queue, sink.task)).unzip();
        drop(queues);
        let until = Instant::now() + deadline;
        for task in tasks {
            let abort = task.abort_handle();
            if timeout_at(until, task).await.is_err() {
                abort.abort();
            }
        }
        self.stats.close();
        self.stats
    }
}
