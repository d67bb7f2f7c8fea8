//! What the pipeline does about the agent itself: keeps its limits, and shows.

use super::Pipeline;
use crate::{
    aggregate::store::Reading,
    clock, deadline,
    faults::Fault,
    intake::kernel_log,
    limits::{self, Use},
    recording::Recorder,
    surface::{
        output,
        summary::{self, View},
    },
    watch::Watched,
};

impl Pipeline {
    /// Judges what the agent itself uses, and gives up or takes back some of its work.
    pub(super) fn keep_limits(&mut self) {
        let (now, (before, cpu)) = (clock::now(), self.judged);
        let elapsed = now.0.saturating_sub(before.0) as f64;
        if elapsed < limits::PERIOD * 1e9 {
            return;
        }
        let Some((used, memory)) = limits::measure() else {
            return;
        };
        self.judged = (now, used);
        let share = used.saturating_sub(cpu) as f64 / elapsed;
        let looks = self.looks.used();
        let of_looks = looks.saturating_sub(self.looked).as_nanos() as f64 / elapsed;
        self.looked = looks;
        let is_new = self.keeper.judge(Use { cpu: share, memory });
        self.looks
            .set_allowance(self.keeper.for_looks((share - of_looks).max(0.0)));
        if !is_new {
            return;
        }
        let shed = self.keeper.shed;
        log::warn!(
            "the agent uses {:.1} % of a core and {} MiB: {}",
            100.0 * share,
            memory >> 20,
            shed.text()
        );
        self.span_buffer.set_limit(shed.spans(self.max_spans));
        self.watch.set_budget_scale(shed.budget());
    }

    /// What it takes to begin is not judged.
    pub(super) fn begun(&mut self) {
        if !self.begun {
            // One that does not answer is not waited for.
            self.begun = !self.lifecycle.images.is_busy() || self.began.elapsed() > deadline::LONG;
            self.judged = (clock::now(), limits::measure().unwrap_or_default().0);
        }
    }

    /// Asks the kernel for the runs of programs that it skipped; the next time, if a window is being opened just now.
    pub(super) fn look_for_skipped(&mut self) {
        if let Some(object) = self.watch.try_object() {
            let skipped = object.skipped().into_iter().filter(|(_, runs)| *runs > 0);
            self.skipped = skipped.map(|(program, runs)| (program.to_owned(), runs)).collect();
        }
    }

    pub(super) fn draw(&mut self, reading: &Reading) {
        let mut targets: Vec<&Watched> = self.watch.targets.iter().collect();
        targets.sort_by_key(|watched| watched.target.id);
        let view = View {
            targets,
            reading,
            export: &self.exporter.stats,
            received: self.ring.received,
            rejected: self.ring.rejected,
            over_limit: self.span_buffer.over_limit,
            skipped: self.skipped.iter().map(|(_, runs)| runs).sum(),
            shed: self.keeper.shed,
            ran: self.began.elapsed(),
            spans: self.span_buffer.made,
            ended: self.watch.targets.ended_count,
        };
        let picture = summary::render(&view);
        if let Err(error) = self.screen.draw(&picture) {
            self.faults.note(Fault::Screen, error);
        }
    }

    /// Puts messages of the kernel programs into the log.
    pub(super) fn log_kernel_messages(&mut self) {
        let Some(messages) = &mut self.messages else { return };
        match messages.read() {
            Ok(0) => {}
            Ok(count) => self.faults.note_many(Fault::KernelLog, count, kernel_log::left_out()),
            Err(why) => {
                self.faults.note(Fault::KernelLog, why);
                self.messages = None;
            }
        }
    }

    /// Takes note of what others could not do, aside from the loop.
    pub(super) fn note_faults(&mut self) {
        if let Some((count, error)) = self.watch.map_failures() {
            self.faults.note_many(Fault::Maps, count, error);
        }
        if let Some((count, error)) = self.screen.failed() {
            self.faults.note_many(Fault::Screen, count, error);
        }
        if let Some((count, error)) = self.recorder.as_mut().and_then(Recorder::failed) {
            self.faults.note_many(Fault::Recording, count, error);
        }
        for (fault, total) in [
            (Fault::Pictures, self.screen.left_out),
            (Fault::Log, output::log_lost()),
            (Fault::Late, deadline::late()),
        ] {
            let new = total.saturating_sub(self.faults.counts[fault as usize]);
            if new > 0 {
                self.faults.note_many(fault, new, format_args!("{new} were left out"));
            }
        }
    }
}
