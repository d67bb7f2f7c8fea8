//! Makes of a recording the spans that the agent made when it was taken.

use std::{collections::HashMap, path::Path, sync::Arc};

use log::debug;

use super::{Described, Frames, Record, to_resource};
use crate::{
    collect::SpanBuffer,
    discover::{Process, process},
    intake::{Event, decode},
    model::{Batch, MonoNs},
    signals::{State, process::quota::Quotas},
    target::Target,
};

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
                ..Batch::default()
            })
        };
        self.span_buffer.take().filter_map(batch).collect()
    }
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
