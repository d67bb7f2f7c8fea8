//! Stage export: batches → OTLP. Each sink has a bounded queue and a task of its own; nothing upstream ever waits for it.

pub mod config;
pub mod grpc;
pub mod jsonl;
pub mod otlp;
pub mod stats;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
    time::timeout,
};

pub use config::GrpcConfig;
pub use stats::{Cause, ExportStats};

use crate::model::Batch;

/// Batches that wait for a sink; one a target and second.
const QUEUE: usize = 256;
/// Most spans, and most points, in one request: far below gRPC's 4 MB.
const REQUEST: usize = 512;

/// Where to.
#[derive(Clone, Debug)]
pub struct Config {
    pub grpc: Option<GrpcConfig>,
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

/// The sinks' front.
pub struct Exporter {
    sinks: Vec<Sink>,
    pub stats: Arc<ExportStats>,
    /// Files that are written, for the closing summary.
    pub files: Vec<PathBuf>,
}

struct Sink {
    aggregate_to_export: mpsc::Sender<Arc<Batch>>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts the sinks. An endpoint that is down is no error: it is tried again.
    pub fn start(config: Config) -> Result<Self, ExportError> {
        let stats = Arc::new(ExportStats::default());
        let (mut sinks, mut files) = (Vec::new(), Vec::new());
        if let Some(grpc) = config.grpc {
            let worker = grpc::Worker::new(&grpc, stats.clone())?;
            let (aggregate_to_export, queue) = mpsc::channel(QUEUE);
            sinks.push(Sink {
                aggregate_to_export,
                task: tokio::spawn(worker.run(queue)),
            });
        }
        if let Some(config) = config.files {
            let writer = jsonl::Writer::open(&config, stats.clone())?;
            files = writer.paths();
            let (aggregate_to_export, queue) = mpsc::channel(QUEUE);
            sinks.push(Sink {
                aggregate_to_export,
                task: tokio::task::spawn_blocking(move || writer.run(queue)),
            });
        }
        Ok(Self { sinks, stats, files })
    }

    /// Hands a batch to every sink that has room, and counts what has none.
    pub fn send(&self, batch: Batch) {
        if batch.spans.is_empty() && batch.metrics.is_empty() {
            return;
        }
        let batch = Arc::new(batch);
        for sink in &self.sinks {
            self.stats.produced(&batch);
            let refused = match sink.aggregate_to_export.try_send(batch.clone()) {
                Ok(()) => continue,
                Err(TrySendError::Full(batch)) => (batch, Cause::QueueFull),
                Err(TrySendError::Closed(batch)) => (batch, Cause::Closed),
            };
            self.stats.dropped(stats::items(&refused.0), refused.1);
        }
    }

    /// Sends what is queued, for at most `deadline`; what is left then is counted as dropped.
    pub async fn shutdown(self, deadline: Duration) -> Arc<ExportStats> {
        self.stats.begin_shutdown();
        for Sink {
            aggregate_to_export,
            task,
        } in self.sinks
        {
            drop(aggregate_to_export);
            let abort = task.abort_handle();
            if timeout(deadline, task).await.is_err() {
                abort.abort();
            }
        }
        self.stats.close();
        self.stats
    }
}
