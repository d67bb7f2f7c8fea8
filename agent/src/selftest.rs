//! `whywait selftest`: loads and attaches every program to the given processes, and checks that every signal that is not
//! refused by name brings something.

use std::time::{Duration, Instant};

use agent_common::histogram::Series;
use anyhow::Context as _;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    aggregate::{Store, store::Reading},
    attach::{kernel::HookState, maps::TargetMaps},
    budget::Meter,
    cli::SelftestArgs,
    collect::Collector,
    discover::{Process, process},
    exit::Exit,
    intake::ring::Ring,
    pipeline, say,
    signal::Coverage,
    signals,
    target::Target,
    watch::{Lifecycle, Options, Watch},
};

/// What a signal of a target must bring: a name, and how to see it.
type Check = (&'static str, &'static str, fn(&Reading, &Target) -> u64);

/// Signals of Go targets, tokio targets, and all.
const GO: &[Check] = &[
    ("go.runtime", "goroutines", |_, target| {
        target
            .go
            .as_ref()
            .and_then(|go| go.latest.as_ref())
            .map_or(0, |(_, s)| s.goroutines)
    }),
    ("go.gc", "cycles", |_, target| target.cycles.exported),
    ("go.sched", "runnable → running", |reading, target| {
        reading.whole(target.slot, Series::GoRunnable).count()
    }),
];
const TOKIO: &[Check] = &[
    ("tokio.poll", "polls", |reading, target| {
        reading.whole(target.slot, Series::TokioPoll).count()
    }),
    ("tokio.wake", "wakes", |reading, target| {
        reading.whole(target.slot, Series::TokioWake).count()
    }),
];
const ALL: &[Check] = &[
    ("net.request", "requests", |reading, target| {
        reading.whole(target.slot, Series::ServerRequest).count()
            + reading.whole(target.slot, Series::ClientRequest).count()
    }),
    ("thread.run_queue", "delays", |reading, target| {
        reading.whole(target.slot, Series::RunQueue).count()
    }),
];

/// Prints a line a signal; fails when one that could be attached stays silent.
pub async fn run(args: &SelftestArgs) -> anyhow::Result<Exit> {
    let (mut object, hooks) = pipeline::load(1 << 20, &[], &signals::OPTIONAL.map(str::to_owned))?;
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
        slow_wait: 0,
        slow_poll: 0,
        slow_request: 0,
        limits: None,
        host: None,
    };
    let mut lifecycle = Lifecycle::new(process::proc(), options.selector.clone(), Process::inspect);
    let mut watch = Watch::new(object, maps, meter, hooks, options, watch_to_selftest);
    lifecycle.scan(&mut watch)?;
    watch.scanned();
    let deadline = Instant::now() + args.timeout;
    let (mut collector, mut rejected) = (Collector::new(usize::MAX), 0u64);
    let outcome = loop {
        sleep(Duration::from_millis(500)).await;
        while let Ok(done) = watch.windows.done.try_recv() {
            watch.done(done);
        }
        while let Ok(looked) = lifecycle.images.done.try_recv() {
            lifecycle.looked(&mut watch, looked);
        }
        ring.drain(1 << 20, |_, event| match event {
            Ok(event) => {
                if let Some(target) = watch.by_slot(event.header().slot) {
                    collector.event(&event, target);
                }
            }
            Err(_) => rejected += 1,
        });
        drop(collector.take());
        let now = crate::clock::now();
        for target in watch.targets.values_mut() {
            target.read_runtime(now).context("cannot read the runtime's memory")?;
        }
        let reading = store.read(watch.kept(false))?;
        let silent = silent(&watch, &reading);
        if silent.is_empty() && !lifecycle.images.is_busy() || Instant::now() > deadline {
            report(&watch, &reading);
            break silent;
        }
    };
    let spans = collector.made;
    say!("selftest: {spans} spans from events, {rejected} undecodable");
    let empty = watch.targets.is_empty();
    watch.close().await;
    if empty {
        anyhow::bail!("selftest: no target: name processes with --pid");
    }
    if spans == 0 || rejected > 0 || !outcome.is_empty() {
        anyhow::bail!("selftest: nothing came of: {}", outcome.join(", "));
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

fn checks(target: &Target) -> impl Iterator<Item = &'static Check> {
    let own = match target.image.as_deref() {
        Some(crate::inspect::Image::Go(_)) => GO,
        Some(crate::inspect::Image::Tokio(_)) => TOKIO,
        None => &[],
    };
    own.iter().chain(ALL)
}

/// Signals that are not off and have brought nothing.
fn silent(watch: &Watch, reading: &Reading) -> Vec<String> {
    let of = |target: &Target| {
        let is_on = |signal: &str| {
            target
                .states
                .iter()
                .any(|state| state.signal == signal && !state.coverage.is_off())
        };
        let silent = checks(target).filter(|(signal, _, count)| is_on(signal) && count(reading, target) == 0);
        silent
            .map(|(signal, ..)| format!("{signal} of pid {}", target.process.pid))
            .collect::<Vec<_>>()
    };
    watch.targets.values().flat_map(of).collect()
}

fn report(watch: &Watch, reading: &Reading) {
    for target in watch.targets.values() {
        for (signal, what, count) in checks(target) {
            say!(
                "selftest: pid {} {signal}: {} {what}",
                target.process.pid,
                count(reading, target)
            );
        }
        for state in &target.states {
            match &state.coverage {
                Coverage::Full => {}
                Coverage::Partial(reason) => say!(
                    "selftest: pid {} {} in part: {reason}",
                    target.process.pid,
                    state.signal
                ),
                Coverage::Off(reason) | Coverage::Lacking(reason) => {
                    say!("selftest: pid {} {} off: {reason}", target.process.pid, state.signal)
                }
            }
        }
    }
    say!("selftest: lost {:?}", reading.loss);
}
