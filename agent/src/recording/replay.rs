//! `whywait replay`: makes of a recording the spans that the agent made when it was taken.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use log::{debug, warn};
use tokio::runtime::Handle;

use super::{Described, Frames, Preface, Reader, Record, RecordingError, to_resource};
use crate::{
    clock::Anchor,
    collect::SpanBuffer,
    discover::{Process, process},
    exit::{Exit, Fatal},
    export::{self, Exporter},
    intake::{Event, decode},
    model::{Batch, MonoNs},
    say,
    signals::{State, process::quota::Quotas},
    target::Target,
};

/// Spans that are handed to export together.
const BATCH: usize = 512;
/// How long sinks may take to send what they hold at the end.
const FLUSH: Duration = Duration::from_secs(60);

/// Targets of a recording, and what their events become.
pub struct Replay {
    targets: HashMap<u32, (Target, State)>,
    pub span_buffer: SpanBuffer,
    pub events: u64,
    /// Records that were no event, and events whose target the recording does not describe.
    pub rejected: u64,
    pub strangers: u64,
}

impl Replay {
    /// Nothing replayed yet; a target may have `limit` spans between two batches.
    pub fn new(limit: usize) -> Self {
        Self {
            targets: HashMap::new(),
            span_buffer: SpanBuffer::new(limit),
            events: 0,
            rejected: 0,
            strangers: 0,
        }
    }

    /// One record; the end is nothing to replay.
    pub fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Event(bytes) => self.event(bytes),
            Record::Target(described) => {
                self.targets.insert(described.target_id, target(described));
            }
            Record::Frames(Frames {
                target_id,
                starts,
                frames,
            }) => {
                if let Some((target, _)) = self.targets.get_mut(&target_id) {
                    target.starts.extend(starts);
                    target.frames.extend(frames);
                }
            }
            Record::End(_) => {}
        }
    }

    /// One record of the ring buffer.
    pub fn event(&mut self, bytes: &[u8]) {
        self.events += 1;
        match decode(bytes) {
            Ok(Event::Exec(_)) => {}
            Ok(event) => match self.targets.get_mut(&event.header().target_id) {
                Some((target, state)) => self.span_buffer.event(&event, target, state),
                None => self.strangers += 1,
            },
            Err(error) => {
                self.rejected += 1;
                debug!("{error}");
            }
        }
    }

    /// What the events became so far.
    pub fn take(&mut self) -> Vec<Batch> {
        let targets = &self.targets;
        let batch = |(target_id, spans)| {
            Some(Batch {
                resource: targets.get(&target_id)?.0.resource.clone(),
                spans,
                metrics: Vec::new(),
            })
        };
        self.span_buffer.take().filter_map(batch).collect()
    }
}

/// Replays `path` into the ways out that `config` names, which run `aside`.
pub async fn run(path: &Path, config: export::Config, aside: &Handle) -> anyhow::Result<Exit> {
    let usage = |error: RecordingError| Fatal::new(Exit::Usage, error);
    let mut reader = Reader::open(path).map_err(usage)?;
    let Preface { mono, wall, .. } = reader.preface;
    let exporter = Exporter::start(config, aside)?.at(Anchor::of(mono, wall));
    let (mut replay, mut end, mut damage) = (Replay::new(usize::MAX), None, None);
    loop {
        match reader.read() {
            Ok(Some(Record::End(found))) => end = Some(found),
            Ok(Some(record)) => replay.record(record),
            Ok(None) => break,
            Err(error) => {
                damage = Some(error);
                break;
            }
        }
        if replay.span_buffer.len() >= BATCH {
            for batch in replay.take() {
                exporter.send_all(batch).await;
            }
        }
    }
    for batch in replay.take() {
        exporter.send_all(batch).await;
    }
    let files = exporter.files.clone();
    let stats = exporter.shutdown(FLUSH).await;
    say!(
        "replayed {} events: {} spans, {} exported, {} dropped; {} no events, {} of no target",
        replay.events,
        replay.span_buffer.made,
        stats.total_sent(),
        stats.total_dropped(),
        replay.rejected,
        replay.strangers
    );
    for file in files {
        say!("written: {}", file.display());
    }
    match end {
        Some(end) if end.lost > 0 => say!("{} events were lost while it was recorded", end.lost),
        Some(_) => {}
        None => warn!(
            "{}: it was not closed normally; what is there was replayed",
            path.display()
        ),
    }
    if let Some(error) = damage {
        return Err(Fatal::new(Exit::Partial, error).into());
    }
    Ok(if stats.total_produced() > 0 && stats.total_sent() == 0 {
        Exit::Undelivered
    } else {
        Exit::Ok
    })
}

fn target(described: Described) -> (Target, State) {
    let process = Process {
        pid: described.pid,
        start: 0,
        exe: Path::new("").to_owned(),
        name: String::new(),
        program: None,
        root: process::proc(),
    };
    let resource = Arc::new(to_resource(&described.resource));
    let mut target = Target::new(process, described.target_id, resource, MonoNs(0));
    target.futures = described.futures;
    let state = State {
        wait_reasons: described.wait_reasons,
        quotas: described.throttling.map(Quotas::recorded),
        ..State::default()
    };
    (target, state)
}
