//! `whywait selftest`: loads and attaches every program to the given processes, and checks that every signal that is not
//! refused by name brings something.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    aggregate::{Store, store::Reading},
    attach::{kernel::HookState, maps::TargetMaps},
    cli::SelftestArgs,
    collect::SpanBuffer,
    discover::{Process, process},
    exit::Exit,
    intake::{kernel_log::KernelLog, ring::Ring},
    lifecycle::Lifecycle,
    limits,
    looks::Looks,
    overhead::Meter,
    pipeline, say,
    signal::Coverage,
    signals::{self, Check, ReadWhen, SIGNALS, Thresholds},
    watch::{Options, Watch, Watched},
};

/// Prints a line a signal; fails when one that could be attached stays silent.
pub async fn run(args: &SelftestArgs) -> anyhow::Result<Exit> {
    let (mut object, hooks) = pipeline::load(
        1 << 20,
        KernelLog::Off,
        &[],
        &signals::optional().into_iter().map(str::to_owned).collect::<Vec<_>>(),
    )?;
    print_hooks(&hooks);
    let mut take = |name: &'static str| object.ebpf.take_map(name);
    let maps = TargetMaps::new(&mut take)?;
    let store = Store::new(&mut take)?;
    let mut ring = Ring::new(take("EVENTS").context("the object has no map EVENTS")?)?;
    let mut meter = Meter::new(&mut take)?;
    meter.calibrate(&mut object);
    let (watch_to_selftest, _ends) = mpsc::channel(16);
    // Thresholds of 0: every wait, poll and request is an event, so each program's slow path runs too.
    let options = Options {
        selector: args.targets.selector(),
        without: Vec::new(),
        thresholds: Thresholds {
            wait: 0,
            poll: 0,
            request: 0,
        },
        limits: None,
        host: None,
        looks: Looks::new(limits::for_looks(None, 0.0)),
    };
    let mut lifecycle = Lifecycle::new(process::proc(), options.selector.clone(), Process::inspect);
    let mut watch = Watch::new(object, maps, meter, hooks, options, watch_to_selftest);
    lifecycle.first_scan(&mut watch)?;
    watch.on_first_scan();
    let deadline = Instant::now() + args.timeout;
    let (mut span_buffer, mut rejected) = (SpanBuffer::new(usize::MAX), 0u64);
    let outcome = loop {
        sleep(Duration::from_millis(500)).await;
        while let Ok(done) = watch.done.try_recv() {
            watch.on_done(done);
        }
        while let Ok(inspection) = lifecycle.images.finished.try_recv() {
            lifecycle.on_inspection(&mut watch, inspection);
        }
        ring.drain(1 << 20, |_, event| match event {
            Ok(event) => {
                if let Some(watched) = watch.targets.by_id(event.header().target_id) {
                    span_buffer.event(&event, &watched.target, &mut watched.state);
                }
            }
            Err(_) => rejected += 1,
        });
        drop(span_buffer.take());
        let now = crate::clock::now();
        for watched in watch.targets.iter_mut() {
            for (signal, memory) in signals::memory_reads(ReadWhen::Tick) {
                (memory.read)(&watched.target, &mut watched.state, now)
                    .with_context(|| format!("{signal}: cannot read the process' memory"))?;
            }
        }
        let reading = store.read(watch.targets.kept_ids(now, false))?;
        let silent = silent(&watch, &reading);
        if silent.is_empty() && !lifecycle.images.is_busy() || Instant::now() > deadline {
            report(&watch, &reading);
            break silent;
        }
    };
    let spans = span_buffer.made;
    say!("selftest: {spans} spans from events, {rejected} undecodable");
    let empty = watch.targets.is_empty();
    watch.close().await;
    if empty {
        anyhow::bail!("selftest: no target: name processes with --pid");
    }
    if spans == 0 || rejected > 0 || !outcome.is_empty() {
        anyhow::bail!("selftest: no events from: {}", outcome.join(", "));
    }
    say!("selftest: ok");
    Ok(Exit::Ok)
}

fn print_hooks(hooks: &[HookState]) {
    for hook in hooks {
        for (alternative, reason) in &hook.refused {
            say!("selftest: {} refused {alternative}: {reason}", hook.signal);
        }
        say!(
            "selftest: {} by {}",
            hook.signal,
            hook.taken.unwrap_or("nothing this kernel permits")
        );
    }
}

/// What there is to see of a target's signals, by their names.
fn checks(watched: &Watched) -> impl Iterator<Item = (&'static str, &'static Check)> {
    let has = |name: &str| watched.state.states.iter().any(|state| state.signal == name);
    let checks = SIGNALS
        .iter()
        .filter_map(|signal| Some((signal.name, signal.check.as_ref()?)));
    checks.filter(move |(name, _)| has(name))
}

/// Signals that are not off and have brought nothing.
fn silent(watch: &Watch, reading: &Reading) -> Vec<String> {
    let of = |watched: &Watched| {
        let is_on = |signal: &str| {
            watched
                .state
                .states
                .iter()
                .any(|state| state.signal == signal && !state.coverage.is_off())
        };
        let silent = checks(watched)
            .filter(|(signal, check)| is_on(signal) && (check.count)(&watched.target, &watched.state, reading) == 0);
        silent
            .map(|(signal, _)| format!("{signal} of pid {}", watched.target.process.pid))
            .collect::<Vec<_>>()
    };
    watch.targets.iter().flat_map(of).collect()
}

fn report(watch: &Watch, reading: &Reading) {
    for watched in watch.targets.iter() {
        for (signal, Check { what, count }) in checks(watched) {
            say!(
                "selftest: pid {} {signal}: {} {what}",
                watched.target.process.pid,
                count(&watched.target, &watched.state, reading)
            );
        }
        for state in &watched.state.states {
            match &state.coverage {
                Coverage::Full => {}
                Coverage::Partial(reason) => say!(
                    "selftest: pid {} {} in part: {reason}",
                    watched.target.process.pid,
                    state.signal
                ),
                Coverage::Off(reason) | Coverage::Lacking(reason) => {
                    say!(
                        "selftest: pid {} {} off: {reason}",
                        watched.target.process.pid,
                        state.signal
                    )
                }
            }
        }
    }
    say!("selftest: lost {:?}", reading.loss);
}
