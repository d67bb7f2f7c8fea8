//! What a hit costs that comes after a pause, when others had the processor's caches: `cargo run --release --example cold [PAIRS]`,
//! as root. A service's kind of work is done once after each pause, with and without hits in its midst, in turns; prints medians, ns.

use std::{
    error::Error,
    hint::black_box,
    thread::sleep,
    time::{Duration, Instant},
};

use agent::{
    attach::{kernel as programs, uprobe::Object},
    budget::calibrate,
    kernel,
};

const ORDER: &str = r#"{"id":4711,"items":[{"sku":"a-17","count":3,"price":12.95},{"sku":"b-2","count":1,"price":0.5}],"note":"by \"post\"\n","paid":true}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let pairs = std::env::args().nth(1).map_or(Ok(50), |text| text.parse::<usize>())?;
    let (layout, preemption) = kernel::read()?;
    let mut object = Object::new(programs::load(&layout, 1 << 16)?, &preemption)
        .map_err(|(name, reason)| format!("{name}: {reason}"))?;
    println!("calibrated {:?}", calibrate::trap(&mut object)?);
    for pause in [0, 100, 500, 1000, 5000, 20_000] {
        for hits in [1, 4, 16] {
            let mut more = Vec::new();
            let mut wholes = Vec::new();
            for _ in 0..pairs {
                let without = median(pause, hits);
                let link = calibrate::attach(&mut object, "calibrate")?;
                let with = median(pause, hits);
                drop(link);
                more.push(with - without);
                wholes.push(without);
            }
            more.sort_by(f64::total_cmp);
            wholes.sort_by(f64::total_cmp);
            let at = |q: f64| more[((pairs - 1) as f64 * q) as usize];
            println!(
                "pause {pause} us, {hits} hits: {:.0} ({:.0}..{:.0}) in all, {:.0} a hit; work {:.0}",
                at(0.5),
                at(0.25),
                at(0.75),
                at(0.5) / f64::from(hits),
                wholes[pairs / 2]
            );
        }
    }
    Ok(())
}

fn median(pause: u64, hits: u32) -> f64 {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            if pause > 0 {
                sleep(Duration::from_micros(pause));
            }
            let begin = Instant::now();
            for _ in 0..hits {
                let order: serde_json::Value = serde_json::from_str(ORDER).unwrap_or_default();
                calibrate::hit();
                black_box(serde_json::to_string(&order).is_ok());
            }
            begin.elapsed().as_nanos() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[4]
}
