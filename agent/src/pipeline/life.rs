//! What the pipeline does when processes exec and targets end: the last figures of a target are exported, then nothing of it is kept.

use std::collections::VecDeque;

use log::debug;

use super::Pipeline;
use crate::{
    account, aggregate::store::Reading, faults::Fault, lifecycle::EndReason, model::Batch, signal, surface::summary,
    watch::Ended,
};

/// Most exec events that are handled at once: more than their ring holds.
const MOST: usize = 1 << 16;

impl Pipeline {
    /// A target's process ended.
    pub(super) fn retire(&mut self, target_id: u32) {
        // One that became another program, or could not be attached, ended before.
        self.watch.retire(target_id, EndReason::Exited);
    }

    /// Handles exec events.
    pub(super) fn take_exec_events(&mut self) {
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
            self.lifecycle.on_exec(&mut self.watch, pid, time);
        }
    }

    /// At the end of a run whose maps cannot be read: exports the spans of targets that ended, without last figures.
    pub(super) fn drop_ended(&mut self) {
        for Ended { watched, .. } in self.watch.take_ended(|_| true) {
            log::warn!(
                "process {}: its last figures are lost, as the kernel's maps could not be read",
                watched.target.process.pid
            );
            let spans = self.span_buffer.take_of(watched.target.id);
            self.exporter.send(Batch {
                resource: watched.target.resource.clone(),
                spans,
                ..Batch::default()
            });
        }
    }

    /// Exports the last figures of targets that ended before `reading`; then nothing of them is kept.
    pub(super) fn export_ended(&mut self, reading: &Reading) {
        for Ended {
            mut watched, reason, ..
        } in self.watch.take_ended(|id| reading.is_gone(id))
        {
            let spans = self.span_buffer.take_of(watched.target.id);
            if let Some(recorder) = &mut self.recorder {
                recorder.forget(watched.target.id);
            }
            if reason == EndReason::AttachFailed {
                self.late += spans.len() as u64;
                self.span_buffer.made -= spans.len() as u64;
                continue;
            }
            // As it was planned: what could not be attached to a process that ends is no fault.
            self.dark |= self.watch.is_requested(&watched) && signal::is_dark(&watched.state.planned);
            let metrics = account::all_metrics(&mut watched, reading);
            self.ended_summary.add(summary::of_target(&watched, reading));
            watched.findings.end(reading.time);
            self.exporter.send(Batch {
                resource: watched.target.resource.clone(),
                spans,
                metrics,
                events: watched.findings.take_events(),
            });
            log::info!(
                "{} (pid {}) {}",
                watched.target.resource.get("service.name").unwrap_or_default(),
                watched.target.process.pid,
                match reason {
                    EndReason::Execed => "became another program",
                    _ => "ended",
                }
            );
        }
        if let Err(error) = self.store.forget(reading) {
            self.faults.note(Fault::Maps, error);
        }
    }
}

/// The closing summary of targets that ended during the run.
#[derive(Default)]
pub(super) struct EndedSummary {
    /// The latest last.
    kept: VecDeque<String>,
    left_out: usize,
}

/// Most targets whose figures are kept for the closing summary.
const SUMMARIZED: usize = 10;

impl EndedSummary {
    fn add(&mut self, figures: String) {
        if self.kept.len() == SUMMARIZED {
            self.kept.pop_front();
            self.left_out += 1;
        }
        self.kept.push_back(figures);
    }

    /// The text; empty if no target ended.
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
    fn the_last_targets_that_ended_are_shown() {
        let mut ended_summary = EndedSummary::default();
        assert_eq!(ended_summary.text(), "");
        ended_summary.add("a\n".to_owned());
        ended_summary.add("b\n".to_owned());
        assert_eq!(ended_summary.text(), "\nended during the run:\na\nb\n");
        (0..SUMMARIZED).for_each(|number| ended_summary.add(format!("{number}\n")));
        let text = ended_summary.text();
        assert!(
            text.starts_with("\nended during the run, the last 10 of 12:\n0\n"),
            "{text}"
        );
        assert!(text.ends_with("\n9\n"), "{text}");
    }
}
