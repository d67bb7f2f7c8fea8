//! How many events a second the kernel side can write before the first is lost: `cargo run --release --example ringbuf
//! [BYTES]`, as root. Prints JSON.
//!
//! A program writes events at a rate that rises step by step; they are taken out and decoded as the agent does it, at its
//! turns and when the ring fills. Of each step is told what was written, what came, and what the kernel side counted as lost.

use std::{
    error::Error,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use agent::{intake::ring::Ring, overhead::calibrate, pipeline};
use agent_common::{hits::FLOOD, loss::Loss};
use aya::maps::PerCpuArray;

const STEP: Duration = Duration::from_secs(2);
const RATES: [u64; 9] = [
    100_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 12_000_000, 16_000_000, 24_000_000,
];
/// A burst of the producer's.
const BURST: Duration = Duration::from_millis(1);

#[derive(serde::Serialize)]
struct Row {
    asked_per_second: u64,
    written_per_second: u64,
    written: u64,
    received: u64,
    lost: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn Error>> {
    let bytes = std::env::args().nth(1).map_or(Ok(1 << 20), |text| text.parse())?;
    let (mut object, _hooks) = pipeline::load(
        bytes,
        agent::intake::kernel_log::KernelLog::Off,
        &agent::signals::NAMES.map(str::to_owned),
        &[],
    )?;
    let mut ring = Ring::new(object.ebpf.take_map("EVENTS").ok_or("no map EVENTS")?)?;
    let loss: PerCpuArray<_, u64> = PerCpuArray::try_from(object.ebpf.take_map("LOSS").ok_or("no map LOSS")?)?;
    let lost = || -> Result<u64, Box<dyn Error>> { Ok(loss.get(&(Loss::RingFull as u32), 0)?.iter().sum()) };
    let _flood = calibrate::attach(&mut object, "flood")?;
    let mut rows = Vec::new();
    for rate in RATES {
        let (received, before) = (ring.received, lost()?);
        let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let seconds = thread::scope(|scope| {
            let producer = scope.spawn(|| produce(rate, &written, &over));
            let drained = drain(&mut ring, &over);
            producer.join().map(|seconds| (seconds, drained))
        });
        let (seconds, drained) = seconds.map_err(|_| "the producer panicked")?;
        drained.map_err(|error| format!("the ring buffer: {error}"))?;
        let written = written.load(Relaxed);
        rows.push(Row {
            asked_per_second: rate,
            written_per_second: (written as f64 / seconds) as u64,
            written,
            received: ring.received - received,
            lost: lost()? - before,
        });
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

/// Writes at `rate` for a step; for how long, s.
fn produce(rate: u64, written: &AtomicU64, over: &AtomicBool) -> f64 {
    let begin = Instant::now();
    let mut done = 0;
    while begin.elapsed() < STEP {
        let wanted = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        while done < wanted && begin.elapsed() < STEP {
            calibrate::hit();
            done += u64::from(FLOOD);
        }
        thread::sleep(BURST);
    }
    let seconds = begin.elapsed().as_secs_f64();
    written.store(done, Relaxed);
    over.store(true, Relaxed);
    seconds
}

/// Takes events out as the agent does: every 10 ms, and when it is woken as the ring fills.
fn drain(ring: &mut Ring, over: &AtomicBool) -> std::io::Result<()> {
    tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(async {
            loop {
                let ended = over.load(Relaxed);
                while ring.drain(4096, |_, _| {}) {}
                if ended {
                    return Ok(());
                }
                let _ = tokio::time::timeout(Duration::from_millis(10), ring.ready()).await;
            }
        })
    })
}
