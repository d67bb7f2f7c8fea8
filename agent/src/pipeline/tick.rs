//! What the pipeline does once a second, and when it ends.

use std::time::{Duration, Instant};

use super::{CLEAR, Pipeline};
use crate::{
    account,
    aggregate::store::Reading,
    clock, deadline, heap, limits,
    model::Batch,
    signals::{self, ReadWhen},
    watch::Watched,
};

impl Pipeline {
    /// Once a second; metrics leave where they are `due`.
    pub(super) fn tick(&mut self, due: bool) {
        self.chores();
        // The kernel's maps are large, and services need the core: they are walked only for who looks at them.
        if due || self.screen.is_live() || self.watch.has_pending() || self.watch.targets.has_ended() {
            self.report(due);
        }
    }

    /// How long until the governor's next turn.
    pub(super) fn pace(&self) -> Duration {
        self.watch.pace(self.lifecycle.has_retries())
    }

    /// Takes some events, reads plane 0, sends spans, tidies.
    pub(super) fn chores(&mut self) {
        self.burst();
        self.log_kernel_messages();
        self.note_faults();
        self.read_memory();
        self.keep_limits();
        if Instant::now() >= self.clear {
            self.clear = Instant::now() + CLEAR;
            self.watch.sweep();
            self.lifecycle.scanner.start();
            heap::give_back();
        }
        let waiting: Vec<_> = self.span_buffer.take().collect();
        for (target_id, spans) in waiting {
            let Some(watched) = self.watch.targets.by_id(target_id) else {
                // Its target ended: they leave with its last figures.
                self.span_buffer.put_back(target_id, spans);
                continue;
            };
            let batch = Batch {
                resource: watched.target.resource.clone(),
                spans,
                ..Batch::default()
            };
            self.exporter.send(batch);
        }
    }

    /// Reads the kernel's maps, extrapolates what windows saw; sends metrics where they are `due`, and draws.
    pub(super) fn report(&mut self, due: bool) {
        let Some(reading) = self.read() else {
            // The agent's own figures leave all the same: they say so.
            if due {
                self.export_own(&Reading {
                    time: clock::now(),
                    loss: self.loss,
                    ..Reading::default()
                });
            }
            return;
        };
        self.export_ended(&reading);
        if due {
            self.export_metrics(&reading);
        }
        if due || self.screen.is_live() {
            self.draw(&reading);
        }
    }

    fn read_memory(&mut self) {
        let begin = Instant::now();
        for watched in self.watch.targets.iter_mut() {
            read(watched, ReadWhen::Tick, begin);
            if watched.findings.is_empty() {
                read(watched, ReadWhen::Export, begin);
                watched.begin_findings();
            }
        }
    }

    fn export_metrics(&mut self, reading: &Reading) {
        self.watch.read_map_use();
        let begin = Instant::now();
        for watched in self.watch.targets.iter_mut() {
            read(watched, ReadWhen::Export, begin);
            let metrics = account::all_metrics(watched, reading);
            self.exporter.send(Batch {
                resource: watched.target.resource.clone(),
                metrics,
                events: watched.findings.take_events(),
                ..Batch::default()
            });
        }
        self.export_own(reading);
    }

    fn export_own(&mut self, reading: &Reading) {
        self.look_for_skipped();
        let own = account::Own {
            start: self.since,
            received: self.ring.received,
            rejected: self.ring.rejected,
            over_limit: self.span_buffer.over_limit,
            late: self.late,
            panics: self.lifecycle.images.panics(),
            skipped: &self.skipped,
            export: &self.exporter.stats,
            shed: self.keeper.shed,
            faults: &self.faults,
            used: limits::measure().unwrap_or_default(),
        };
        let metrics = account::own_metrics(reading, &own);
        self.exporter.send(Batch {
            resource: self.own.clone(),
            metrics,
            ..Batch::default()
        });
    }
}

/// Reads a target's memory, in what is left of a turn that began at `begin`. A process that does not answer is not asked again before it has; the
/// next one has its turn at the next tick.
fn read(watched: &mut Watched, when: ReadWhen, begin: Instant) {
    for (signal, memory) in signals::memory_reads(when) {
        if begin.elapsed() >= deadline::SOON {
            return;
        }
        match (memory.read)(&watched.target, &mut watched.state, clock::now()) {
            Ok(false) => {}
            outcome => watched.set_memory_outcome(signal, outcome.map(drop)),
        }
    }
}
