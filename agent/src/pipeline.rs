//! The whole way, wired in one function: discover → attach → intake → aggregate → export, with bounded channels between.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_common::loss::Loss;
use anyhow::Context as _;
use log::debug;
use tokio::{
    runtime::Handle,
    select,
    sync::mpsc,
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    aggregate::{Store, store::Reading},
    attach::maps::TargetMaps,
    cli::RunArgs,
    clock,
    collect::SpanBuffer,
    discover::{Process, process},
    enrich,
    exit::Exit,
    export::Exporter,
    faults::{Fault, Faults},
    heap,
    intake::{kernel_log::KernelMessages, ring::Ring},
    lifecycle::Lifecycle,
    limits::Keeper,
    looks::Looks,
    model::{MonoNs, Resource},
    overhead::Meter,
    recording::{Finished, Recorder},
    surface::{
        health::{self, Health},
        summary::Screen,
    },
    watch::Watch,
};

#[cfg(test)]
mod flood_tests;
mod life;
mod own;
mod startup;
mod stop;
mod tick;

pub use startup::{export_config, load};
use startup::{options, own_limits};
use stop::Stop;

/// Events handled before the loop looks at its other duties: a flood of them delays no tick, no governor and no Ctrl-C.
const BURST: usize = 4096;
/// How long who reads standard output may take for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long sinks may take to send what they hold when the run ends.
const FLUSH: Duration = Duration::from_secs(5);
/// How often maps are read for the summary, and spans leave.
const TICK: Duration = Duration::from_secs(1);
/// How often what closed windows left in the kernel's maps is removed, and memory that is not used is given back.
const CLEAR: Duration = Duration::from_secs(30);
/// Ends of targets that wait to be handled.
const ENDS: usize = 256;

/// The running agent.
struct Pipeline {
    watch: Watch,
    /// Who becomes a target of the watch's.
    lifecycle: Lifecycle,
    ring: Ring,
    /// Exec events, apart from the others so that a flood of those takes no room from them.
    execs: Ring,
    /// Messages of the kernel programs; None where they are not wanted, or cannot be read any more.
    messages: Option<KernelMessages>,
    store: Store,
    exporter: Exporter,
    health: Arc<Health>,
    own: Arc<Resource>,
    screen: Screen,
    began: Instant,
    since: MonoNs,
    /// Spans that leave at the next tick.
    span_buffer: SpanBuffer,
    recorder: Option<Recorder>,
    faults: Faults,
    /// What the kernel side lost, as of the last reading.
    loss: [u64; Loss::COUNT as usize],
    /// Most spans of a target in a second, as asked for.
    max_spans: usize,
    keeper: Keeper,
    /// Has targets looked at; and the CPU time that this took at the last judgement.
    looks: Arc<Looks>,
    looked: Duration,
    /// The last judgement of the agent's own use, and its CPU time then, ns.
    judged: (MonoNs, u64),
    /// When the kernel's maps are tidied next.
    clear: Instant,
    /// Events of targets whose last figures had left, and spans of those that were refused.
    late: u64,
    /// Of that, events that are in no recording.
    unrecorded: u64,
    ended_summary: life::EndedSummary,
    /// A target that was named ended, and some signal of it was off.
    dark: bool,
    /// What was there at the begin is inspected.
    begun: bool,
    /// The run ends: these are the last figures of all.
    ending: bool,
    /// Runs of the kernel side's programs that the kernel skipped, by program, when metrics left last.
    skipped: Vec<(String, u64)>,
}

/// Runs until Ctrl-C, the duration's end, or the end of the last process that was named by its pid; events go into `record`
/// as well. Exports and answers probes of its health `aside`.
pub async fn run(args: &RunArgs, record: Option<&Path>, aside: &Handle) -> anyhow::Result<Exit> {
    // From here on Ctrl-C ends the run in order, also while it attaches.
    let mut stop = Stop::new().context("cannot handle signals")?;
    let (mut pipeline, mut ends) = Pipeline::start(args, record, aside).await?;
    if let Err(error) = pipeline.lifecycle.first_scan(&mut pipeline.watch) {
        pipeline.watch.close().await;
        return Err(error);
    }
    pipeline.watch.on_first_scan();
    pipeline.begun();
    // Reading the kernel's types took fifty times what stays of it.
    heap::give_back();
    let exit = pipeline.turn_until_end(args, &mut ends, &mut stop).await;
    pipeline.finish(exit).await
}

impl Pipeline {
    /// Wires it; nobody is watched yet. Ends of targets come out beside it.
    async fn start(
        args: &RunArgs,
        record: Option<&Path>,
        aside: &Handle,
    ) -> anyhow::Result<(Self, mpsc::Receiver<u32>)> {
        let options = options(args)?;
        let export = export_config(&args.export)?;
        let recorder = record.map(Recorder::create).transpose()?;
        let (mut object, hooks) = load(args.ring, args.kernel_log, &args.without, &args.with)?;
        let messages = KernelMessages::new(args.kernel_log, &mut object.ebpf)?;
        let mut take = |name: &'static str| object.ebpf.take_map(name);
        let maps = TargetMaps::new(&mut take)?;
        let store = Store::new(&mut take)?;
        let ring = Ring::new(take("EVENTS").context("the object has no map EVENTS")?)?;
        let execs = Ring::new(take("EXECS").context("the object has no map EXECS")?)?;
        let (watch_to_pipeline, ends) = mpsc::channel(ENDS);
        let mut meter = Meter::new(&mut take)?;
        meter.calibrate(&mut object);
        let lifecycle = Lifecycle::new(process::proc(), options.selector.clone(), Process::inspect);
        let looks = options.looks.clone();
        let watch = Watch::new(object, maps, meter, hooks, options, watch_to_pipeline);
        let exporter = Exporter::start(export, aside)?;
        let health = Arc::new(Health::default());
        if let Some(address) = args.health_listen {
            let serve = health::serve(address, health.clone(), exporter.stats.clone());
            aside
                .spawn(serve)
                .await?
                .with_context(|| format!("cannot serve /livez and /readyz on {address}"))?;
        }
        let screen = Screen::new(args.plain).context("cannot start the thread that writes to standard output")?;
        let pipeline = Self {
            watch,
            lifecycle,
            ring,
            execs,
            messages,
            store,
            exporter,
            health,
            own: Arc::new(enrich::own_resource()),
            screen,
            began: Instant::now(),
            since: clock::now(),
            span_buffer: SpanBuffer::new(args.max_spans),
            recorder,
            faults: Faults::default(),
            loss: [0; Loss::COUNT as usize],
            max_spans: args.max_spans,
            keeper: Keeper::new(own_limits(args)),
            looks,
            looked: Duration::ZERO,
            judged: (clock::now(), 0),
            clear: Instant::now() + CLEAR,
            late: 0,
            unrecorded: 0,
            ended_summary: life::EndedSummary::default(),
            dark: false,
            begun: false,
            ending: false,
            skipped: Vec::new(),
        };
        Ok((pipeline, ends))
    }

    async fn turn_until_end(&mut self, args: &RunArgs, ends: &mut mpsc::Receiver<u32>, stop: &mut Stop) -> Exit {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = Instant::now();
        let mut next_metrics = Instant::now() + args.metric_interval;
        let end = args.duration.map(|duration| self.began + duration);
        let far = Instant::now() + Duration::from_secs(86_400 * 365 * 10);
        // Whether events are left that there was no time for, and whether the ring buffer says that there are new ones.
        let (mut backlog, mut wakes) = (false, true);
        loop {
            select! {
                biased;
                () = stop.asked() => return Exit::Ok,
                () = sleep_until(end.unwrap_or(far).into()) => return Exit::Ok,
                Some(target_id) = ends.recv() => {
                    self.retire(target_id);
                    if self.all_named_ended(args) {
                        return Exit::TargetEnded;
                    }
                }
                Some(done) = self.watch.done.recv() => {
                    self.watch.on_done(done);
                    turn = turn.min(Instant::now() + self.pace());
                }
                Some(inspection) = self.lifecycle.images.finished.recv() => {
                    self.lifecycle.on_inspection(&mut self.watch, inspection);
                    self.begun();
                }
                Some(scan) = self.lifecycle.scanner.finished.recv() => self.lifecycle.on_scan(&mut self.watch, scan),
                _ = tick.tick() => {
                    self.health.turn();
                    let due = Instant::now() >= next_metrics;
                    self.tick(due);
                    if due {
                        next_metrics += args.metric_interval;
                    }
                }
                () = sleep_until(turn.into()) => {
                    backlog = self.burst();
                    self.lifecycle.check_deferred(&mut self.watch, clock::now());
                    // Without a budget nothing is opened or closed; what it costs is counted all the same.
                    self.watch.govern();
                    turn = Instant::now() + self.pace();
                }
                // Other tasks, signals and the ring buffer's own word are looked at only where this one waits.
                () = yield_now(), if backlog => backlog = self.burst(),
                ready = self.ring.ready(), if wakes => match ready {
                    Ok(()) => backlog = self.burst(),
                    Err(error) => {
                        self.faults.note(Fault::Ring, error);
                        wakes = false;
                    }
                },
            }
        }
    }

    /// Takes all events that are in the ring buffer now. What is written meanwhile is left where it is: a flood has no end.
    fn intake(&mut self) {
        let mut left = self.ring.size();
        while left > 0 {
            let before = self.ring.taken;
            if !self.burst() {
                return;
            }
            left = left.saturating_sub(self.ring.taken - before);
        }
    }

    /// Takes some events out of the ring buffers: new processes to the watch, spans by target. True when some are left.
    fn burst(&mut self) -> bool {
        self.take_exec_events();
        let mut events = Vec::new();
        let recorder = &mut self.recorder;
        let more = self.ring.drain(BURST, |bytes, event| {
            if let (Some(recorder), Err(_)) = (recorder.as_mut(), &event) {
                recorder.raw(bytes);
            }
            match event {
                Ok(event) => events.push(event),
                Err(error) => debug!("{error}"),
            }
        });
        for event in events {
            // Of a target whose last figures have left.
            let Some(watched) = self.watch.targets.by_id(event.header().target_id) else {
                self.late += 1;
                self.unrecorded += 1;
                continue;
            };
            if let Some(recorder) = &mut self.recorder {
                recorder.event(&event, &watched.target, &watched.state);
            }
            self.span_buffer.event(&event, &watched.target, &mut watched.state);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.hand_on();
        }
        more
    }

    /// The kernel's maps, with the counts of windows extrapolated; None if they cannot be read, which is counted.
    fn read(&mut self) -> Option<Reading> {
        let kept = self.watch.prepare_reading(self.ending);
        let mut reading = match self.store.read(kept) {
            Ok(reading) => reading,
            Err(error) => {
                self.faults.note(Fault::Maps, error);
                return None;
            }
        };
        self.loss = reading.loss;
        self.watch.extrapolate(&mut reading);
        Some(reading)
    }

    fn all_named_ended(&self, args: &RunArgs) -> bool {
        let named_by_pid_only =
            !args.targets.pid.is_empty() && args.targets.exe.is_empty() && args.targets.name.is_empty();
        // One that has just become another program is no target yet.
        let lives = |pid: &u32| Process::read(*pid).is_ok();
        named_by_pid_only
            && self.watch.targets.is_empty()
            && self.watch.targets.ended_count > 0
            && !args.targets.pid.iter().any(lives)
    }

    /// Last figures, closing summary, everything detached.
    async fn finish(mut self, exit: Exit) -> anyhow::Result<Exit> {
        self.ending = true;
        // First, so that what comes of it leaves with the chores.
        self.intake();
        self.chores();
        self.report(true);
        self.drop_ended();
        self.screen.keep();
        let partial = self.dark || self.watch.is_dark();
        let files = self.exporter.files.clone();
        self.watch.close().await;
        let stats = self.exporter.shutdown(FLUSH).await;
        for line in self.ended_summary.text().lines() {
            self.screen.say(format_args!("{line}"));
        }
        self.screen.say(format_args!(
            "whywait ran {}: {} spans, {} events received, spans and points: {} exported, {} dropped; everything is detached",
            humantime::format_duration(Duration::from_secs(self.began.elapsed().as_secs())),
            self.span_buffer.made,
            self.ring.received,
            stats.total_sent(),
            stats.dropped_text()
        ));
        for file in files {
            self.screen.say(format_args!("written: {}", file.display()));
        }
        let recorded = self
            .recorder
            .map(|recorder| recorder.finish(self.loss[Loss::RingFull as usize] + self.unrecorded, FLUSH))
            .transpose();
        if let Ok(Some(Finished { path, events, lost })) = &recorded {
            let path = path.display();
            self.screen.say(format_args!("recorded: {path}, {events} events"));
            if *lost > 0 {
                self.screen
                    .say(format_args!("{lost} more were lost, because writing was too slow"));
            }
        }
        self.screen.finish(LAST_LINES);
        if let Some((_, error)) = self.screen.failed() {
            self.faults.note(Fault::Screen, error);
        }
        recorded?;
        Ok(match exit {
            Exit::Ok if stats.total_produced() > 0 && stats.total_sent() == 0 => Exit::Undelivered,
            Exit::Ok if partial => Exit::Partial,
            exit => exit,
        })
    }
}
