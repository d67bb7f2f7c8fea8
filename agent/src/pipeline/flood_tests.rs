//! Events that come faster than they can be taken, by the program that is there for measurements.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use agent_common::{go::sched::Wait, hits::FLOOD};
use clap::Parser as _;

use super::*;
use crate::{
    cli::{Cli, Command},
    overhead::calibrate,
};

/// When the flood ends by itself, so that a pipeline that never looks up fails the test and does not hang it.
const MOST: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_flood_of_events_delays_no_tick_and_no_end() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this test as root");
        return eprintln!("SKIPPED: needs root");
    }
    let out = tempfile::tempdir().unwrap();
    let own = std::process::id().to_string();
    let out = out.path().to_str().unwrap();
    let line = [
        "whywait",
        "run",
        "--plain",
        "--pid",
        &own,
        "--out",
        out,
        "--duration",
        "3s",
        "--metric-interval",
        "1s",
    ];
    let Command::Run(args) = Cli::parse_from(line).command else {
        panic!("run is run");
    };
    let mut stop = Stop::new().unwrap();
    let (mut pipeline, mut ends) = Pipeline::start(&args, None, &Handle::current()).await.unwrap();
    let flood = calibrate::attach(&mut pipeline.watch.object(), "flood").unwrap();
    // More than the ring holds: of that, a turn takes a part, and the next one goes on.
    for _ in 0..pipeline.ring.size() / 64 / u64::from(FLOOD) {
        calibrate::hit();
    }
    assert!(pipeline.burst());
    // Not by what was received: programs that start meanwhile are in that, from a ring of their own.
    let record = (8 + size_of::<Wait>() as u64).next_multiple_of(8);
    assert_eq!(pipeline.ring.taken, BURST as u64 * record);
    pipeline.intake();
    let taken = pipeline.ring.taken;
    assert!(!pipeline.burst() && pipeline.ring.taken == taken, "all of it was taken");
    assert!(
        taken > pipeline.ring.size() / 2 && taken <= pipeline.ring.size(),
        "{taken} bytes"
    );
    let over = Arc::new(AtomicBool::new(false));
    // More than one thread can take out, on any machine.
    let threads = 2 * aya::util::online_cpus().unwrap().len();
    let flooding: Vec<_> = (0..threads)
        .map(|_| {
            let ended = over.clone();
            thread::spawn(move || {
                let begin = Instant::now();
                while !ended.load(Relaxed) && begin.elapsed() < MOST {
                    calibrate::hit();
                }
                ended.load(Relaxed)
            })
        })
        .collect();
    // What is written while it is taken is left: this ends.
    let before = pipeline.ring.taken;
    pipeline.intake();
    let most = pipeline.ring.size() + (BURST * 512) as u64;
    assert!(
        pipeline.ring.taken - before <= most,
        "{} bytes at once",
        pipeline.ring.taken - before
    );
    let exit = pipeline.turn_until_end(&args, &mut ends, &mut stop).await;
    over.store(true, Relaxed);
    let flooded = flooding.into_iter().all(|thread| thread.join().unwrap());
    assert_eq!(exit, Exit::Ok);
    drop(flood);
    assert!(flooded, "the run ended only when the flood did");
    let (received, produced) = (pipeline.ring.received, pipeline.exporter.stats.total_produced());
    assert!(received > 10 * BURST as u64, "{received} events are no flood");
    assert!(produced > 0, "no metrics left meanwhile");
    pipeline.watch.close().await;
}
