//! What inspecting an executable costs: `inspect TIMES PATH…` prints one line of JSON a path. `cargo xtask bench inspect`
//! runs it once a file, so that no file finds memory that another one left behind.

use std::{
    env,
    fs::{self, File},
    process::ExitCode,
    time::Instant,
};

use agent::{
    heap,
    inspect::{GoImage, Image, inspect_file},
};
use anyhow::{Context as _, Result};
use serde_json::json;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let Some(times) = args
        .next()
        .and_then(|times| times.parse().ok())
        .filter(|times| *times > 0)
    else {
        eprintln!("usage: inspect TIMES PATH…");
        return ExitCode::from(2);
    };
    let mut failed = false;
    for path in args {
        match measure(&path, times) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("{error:#}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

fn measure(path: &str, times: usize) -> Result<serde_json::Value> {
    // So that the file is in the kernel's memory; none of it stays in this process'.
    let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?.len();
    heap::give_back();
    // The kernel's mark of the most memory in use starts again from what is in use now (proc_pid_clear_refs(5)).
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of the memory in use")?;
    let before = kib("VmRSS:")?;
    let mut ms = Vec::new();
    let mut last = None;
    for _ in 0..times {
        drop(last.take());
        let began = Instant::now();
        let file = File::open(path);
        let outcome = file.map(|file| inspect_file(&file));
        ms.push(began.elapsed().as_secs_f64() * 1e3);
        last = Some(outcome.with_context(|| format!("cannot read {path}"))?);
    }
    heap::give_back();
    let kept = kib("VmRSS:")?.saturating_sub(before) * 1024;
    let found = match &last {
        None | Some(Ok(None)) => "none".to_owned(),
        Some(Ok(Some(image))) => name(&**image),
        Some(Err(error)) => format!("refused: {error}"),
    };
    ms.sort_by(f64::total_cmp);
    Ok(json!({
        "file": path.rsplit('/').next(),
        "bytes": bytes,
        "found": found,
        "median_ms": (ms[(times - 1) / 2] + ms[times / 2]) / 2.0,
        "peak_growth_bytes": kib("VmHWM:")?.saturating_sub(before) * 1024,
        "kept_bytes": kept,
    }))
}

fn name(image: &dyn Image) -> String {
    match image.downcast_ref::<GoImage>() {
        Some(go) if go.offsets.is_err() || go.globals.is_err() => {
            let errors = [go.offsets.as_ref().err(), go.globals.as_ref().err()];
            let errors: Vec<String> = errors.iter().flatten().map(ToString::to_string).collect();
            format!("{}: {}", go.version, errors.join("; "))
        }
        Some(go) if go.stripped => format!("{}, stripped", go.version),
        Some(go) => go.version.to_string(),
        None if image.version().is_none() => format!("{} of unknown version", image.name()),
        None => image.name(),
    }
}

/// A figure of this process' memory.
fn kib(key: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let figure = status.lines().find_map(|line| line.strip_prefix(key));
    let figure = figure.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    figure.with_context(|| format!("/proc/self/status has no {key}"))
}
