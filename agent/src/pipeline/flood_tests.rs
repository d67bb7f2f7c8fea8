//! Events that come faster than they can be taken, by the program that is there for measurements.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use clap::Parser as _;

use super::*;
use crate::{
    budget::calibrate,
    cli::{Cli, Command},
};

/// When the flood ends by itself, so that a pipeline that never looks up fails the test and does not hang it.
const MOST: Duration = Duration::from_secs(60);

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
    let flood = calibrate::attach(&mut pipeline.watch.windows.object(), "flood").unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let flooding = thread::spawn(move || {
        let begin = Instant::now();
        while !ended.load(Relaxed) && begin.elapsed() < MOST {
            calibrate::hit();
        }
        ended.load(Relaxed)
    });
    let exit = pipeline.turn_until_end(&args, &mut ends, &mut stop).await;
    over.store(true, Relaxed);
    let flooded = flooding.join().unwrap();
    assert_eq!(exit, Exit::Ok);
    drop(flood);
    assert!(flooded, "the run ended only when the flood did");
    let (received, produced) = (pipeline.ring.received, pipeline.exporter.stats.total_produced());
    assert!(received > 10 * BURST as u64, "{received} events are no flood");
    assert!(produced > 0, "no metrics left meanwhile");
    pipeline.watch.close().await;
}
