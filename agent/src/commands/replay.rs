//! `whywait replay`: exports the spans of a recording.

use std::{path::Path, time::Duration};

use log::warn;
use tokio::runtime::Handle;

use crate::{
    clock::Anchor,
    exit::{Exit, Fatal},
    export::{self, Exporter},
    recording::{Preface, Reader, Record, RecordingError, replay::Replay},
    say,
};

/// Spans that are handed to export together.
const BATCH: usize = 512;
/// How long sinks may take to send what they hold at the end.
const FLUSH: Duration = Duration::from_secs(60);

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
        stats.dropped_text(),
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
