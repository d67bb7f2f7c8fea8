//! How targets end, as the pipeline sees it: their last figures leave, then they are forgotten.

use std::collections::VecDeque;

use log::debug;

use super::Pipeline;
use crate::{
    account,
    aggregate::store::Reading,
    faults::Fault,
    model::Batch,
    signal, summary,
    watch::{Looked, Retired, Why},
};

/// Exec events that are taken at once: more than their ring holds.
const MOST: usize = 1 << 16;

impl Pipeline {
    /// A target's process ended.
    pub(super) fn retire(&mut self, target_id: u32) {
        // One that became another program, or could not be attached, ended before.
        if let Some(settled) = self.watch.retire(target_id, Why::Ended) {
            self.unsettled.extend(settled);
        }
    }

    /// Processes that became other programs.
    pub(super) fn arrivals(&mut self) {
        let mut execs = Vec::new();
        let recorder = &mut self.recorder;
        self.execs.drain(MOST, |bytes, event| {
            if let Some(recorder) = recorder {
                recorder.raw(bytes);
            }
            match event {
                Ok(event) => execs.push((event.header().tgid, event.header().time)),
                Err(error) => debug!("{error}"),
            }
        });
        self.ring.received += std::mem::take(&mut self.execs.received);
        self.ring.rejected += std::mem::take(&mut self.execs.rejected);
        for (pid, time) in execs {
            let settled = self.lifecycle.execed(&mut self.watch, pid, time);
            self.unsettled.extend(settled);
        }
    }

    /// A look at every process is over.
    pub(super) fn reconciled(&mut self, looked: Looked) {
        let settled = self.lifecycle.reconciled(&mut self.watch, looked);
        self.unsettled.extend(settled);
    }

    /// At the end of a run whose maps cannot be read: spans of targets that ended leave, without last figures.
    pub(super) fn bury_unread(&mut self) {
        for Retired { watched, .. } in self.watch.bury(|_| true) {
            log::warn!(
                "process {}: its last figures are lost, as the kernel's maps could not be read",
                watched.target.process.pid
            );
            let spans = self.span_buffer.take_of(watched.target.id);
            self.exporter.send(Batch {
                resource: watched.target.resource.clone(),
                spans,
                metrics: Vec::new(),
            });
        }
    }

    /// The last figures of targets that ended, which `reading` was taken after, leave; then nothing of them is kept.
    pub(super) fn bury(&mut self, reading: &Reading) {
        for Retired { mut watched, why, .. } in self.watch.bury(|target_id| reading.is_gone(target_id)) {
            let spans = self.span_buffer.take_of(watched.target.id);
            if let Some(recorder) = &mut self.recorder {
                recorder.forget(watched.target.id);
            }
            if why == Why::Refused {
                self.late += spans.len() as u64;
                self.span_buffer.made -= spans.len() as u64;
                continue;
            }
            // As it was planned: what could not be attached to a process that ends is no fault.
            self.dark |= self.watch.names(&watched) && signal::is_dark(&watched.state.planned);
            let metrics = account::all_metrics(&mut watched, reading);
            self.exporter.send(Batch {
                resource: watched.target.resource.clone(),
                spans,
                metrics,
            });
            self.farewells.add(summary::of_target(&watched, reading));
            log::info!(
                "{} (pid {}) {}",
                watched.target.resource.get("service.name").unwrap_or_default(),
                watched.target.process.pid,
                match why {
                    Why::Execed => "became another program",
                    _ => "ended",
                }
            );
        }
        if let Err(error) = self.store.forget(reading) {
            self.faults.note(Fault::Maps, error);
        }
    }
}

/// What there is to say in the end of targets that ended before.
#[derive(Default)]
pub(super) struct Farewells {
    /// The latest last.
    kept: VecDeque<String>,
    left_out: usize,
}

/// Most targets that ended of which the last figures are kept.
const FAREWELLS: usize = 10;

impl Farewells {
    fn add(&mut self, figures: String) {
        if self.kept.len() == FAREWELLS {
            self.kept.pop_front();
            self.left_out += 1;
        }
        self.kept.push_back(figures);
    }

    /// For the closing summary; empty when none ended.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        match (self.kept.len(), self.left_out) {
            (0, _) => return text,
            (_, 0) => text.push_str("\nended during the run:\n"),
            (kept, left_out) => {
                text = format!("\nended during the run, the last {kept} of {}:\n", kept + left_out);
            }
        }
        text.extend(self.kept.iter().map(String::as_str));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_ended_are_told() {
        let mut farewells = Farewells::default();
        assert_eq!(farewells.text(), "");
        farewells.add("a\n".to_owned());
        farewells.add("b\n".to_owned());
        assert_eq!(farewells.text(), "\nended during the run:\na\nb\n");
        (0..FAREWELLS).for_each(|number| farewells.add(format!("{number}\n")));
        let text = farewells.text();
        assert!(
            text.starts_with("\nended during the run, the last 10 of 12:\n0\n"),
            "{text}"
        );
        assert!(text.ends_with("\n9\n"), "{text}");
    }
}
