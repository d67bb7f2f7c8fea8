//! What it costs to run uprobe programs with preemption off (attach/guard.rs): `cargo run --release --example guard [PAIRS]`, as
//! root. The empty program is hit with the guard and without it in turn; prints JSON.
//!
//! Only for a kernel that preempts nothing, as the build's: elsewhere the programs without it are in danger.

use std::{error::Error, time::Instant};

use agent::{
    attach::{kernel as programs, uprobe::Object},
    intake::kernel_log::KernelLog,
    kernel::{self, Preemption},
    overhead::calibrate,
};
use aya::sys::{Stats, enable_stats};

const PROGRAM: &str = "calibrate";
const HITS: u32 = 2000;

#[derive(serde::Serialize)]
struct Report {
    pairs: usize,
    /// A hit, ns, median: all of it, and the program alone by the kernel's statistics.
    plain: f64,
    guarded: f64,
    plain_program: f64,
    guarded_program: f64,
    /// By pair: guarded less plain, ns; the median and the middle half.
    more: f64,
    more_from: f64,
    more_to: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let pairs = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    let (layout, preemption) = kernel::read()?;
    let load = |preemption: &Preemption| -> Result<Object, Box<dyn Error>> {
        Object::new(programs::load(&layout, 1 << 16, KernelLog::Off)?, preemption)
            .map_err(|(name, reason)| format!("{name}: {reason}").into())
    };
    let (mut plain, mut guarded) = (load(&Preemption::default())?, load(&preemption)?);
    println!("{} / {}", plain.way(), guarded.way());
    let stats = enable_stats(Stats::RunTime)?;
    let (plain_program, guarded_program) = (calibrate::bias(&mut plain)?, calibrate::bias(&mut guarded)?);
    drop(stats);
    let mut times: Vec<[f64; 2]> = Vec::new();
    for _ in 0..pairs {
        times.push([time(&mut plain)?, time(&mut guarded)?]);
    }
    let mut more: Vec<f64> = times.iter().map(|[plain, guarded]| guarded - plain).collect();
    let report = Report {
        pairs,
        plain: quantile(&mut times.iter().map(|pair| pair[0]).collect::<Vec<_>>(), 0.5),
        guarded: quantile(&mut times.iter().map(|pair| pair[1]).collect::<Vec<_>>(), 0.5),
        plain_program,
        guarded_program,
        more: quantile(&mut more, 0.5),
        more_from: quantile(&mut more, 0.25),
        more_to: quantile(&mut more, 0.75),
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// A hit, ns.
fn time(object: &mut Object) -> Result<f64, Box<dyn Error>> {
    let link = calibrate::attach(object, PROGRAM)?;
    let begin = Instant::now();
    for _ in 0..HITS {
        calibrate::hit();
    }
    let took = begin.elapsed().as_nanos() as f64 / f64::from(HITS);
    drop(link);
    Ok(took)
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}
