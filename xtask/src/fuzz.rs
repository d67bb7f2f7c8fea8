//! `cargo xtask fuzz`: feeds every reader of hostile bytes with what libFuzzer makes of its seeds.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{progress, setup, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// How long each reader is fed
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Readers that are fed side by side
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Make the seeds anew, from these two executables: a Go one with symbols and uncompressed DWARF, and one with tokio
    #[arg(long, num_args = 2, value_names = ["GO", "RUST"])]
    seeds: Vec<PathBuf>,
    /// Only these readers; all by default
    readers: Vec<String>,
}

/// What cargo-fuzz passes: counters at every edge, and the operands of comparisons. No sanitizer: the readers are safe Rust,
/// their findings are panics, time and memory.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

pub(crate) fn run(options: Options) -> Result<()> {
    if sh::which("c++").is_none() {
        bail!("libFuzzer is C++: apt install g++");
    }
    let target = sh::target().join("fuzz");
    let seeds = sh::root().join("agent/fuzz/seeds");
    if let [go, rust] = options.seeds.as_slice() {
        let mut command = sh::cargo(&[
            "test",
            "--release",
            "-p",
            "agent",
            "--lib",
            "seed::make",
            "--",
            "--ignored",
        ]);
        // The tests run in their package's folder.
        let whole = |path: &Path| std::path::absolute(path).with_context(|| format!("{} is no path", path.display()));
        return sh::run(command.env("WHYWAIT_GO", whole(go)?).env("WHYWAIT_RUST", whole(rust)?));
    }
    build(&target)?;
    let program = target.join(sh::STATIC_TARGET).join("release/fuzz");
    let mut readers = options.readers;
    if readers.is_empty() {
        let folders = std::fs::read_dir(&seeds).with_context(|| format!("no {}", seeds.display()))?;
        readers = folders
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        readers.sort();
    }
    let queue = Mutex::new(readers.iter());
    let next = || queue.lock().ok()?.next();
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(reader) = next() {
                    let outcome = feed(&program, reader, &seeds.join(reader), options.seconds);
                    match outcome {
                        Ok(line) => progress::note(&line),
                        Err(error) => found
                            .lock()
                            .unwrap_or_else(|lock| lock.into_inner())
                            .push(format!("{error:#}")),
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(|lock| lock.into_inner());
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    Ok(())
}

fn build(target: &Path) -> Result<()> {
    setup::ensure(setup::Wanted::default())?;
    let mut command = sh::cargo(&["build", "--release", "--target", sh::STATIC_TARGET]);
    command
        .args(["--manifest-path", "agent/fuzz/Cargo.toml", "--target-dir"])
        .arg(target)
        .env("RUSTFLAGS", format!("--cfg fuzzing {}", COVERAGE.join(" ")));
    progress::step("Building the readers for libFuzzer", &mut command)
}

/// Feeds one reader; what it did, in a line.
fn feed(program: &Path, reader: &str, seeds: &Path, seconds: u32) -> Result<String> {
    let folder = sh::target().join("fuzz/corpus").join(reader);
    std::fs::create_dir_all(&folder)?;
    let log = sh::target().join(format!("fuzz/{reader}.log"));
    let findings = sh::target().join(format!("fuzz/{reader}-"));
    let file = sh::create(&log)?;
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program).args([&folder, seeds]);
    command
        .args([
            "-rss_limit_mb=512",
            // By the wall clock, at the lowest priority.
            "-timeout=30",
            "-max_len=65536",
            "-print_final_stats=1",
        ])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}", findings.display()))
        .env("WHYWAIT_READER", reader)
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut child: Child = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let status = child.wait()?;
    let text = std::fs::read_to_string(&log)?;
    if !status.success() {
        let said = text
            .lines()
            .find(|line| line.contains("panicked") || line.contains("ERROR: libFuzzer"));
        bail!(
            "{reader}: {}; the input is in {}*, more in {}",
            said.unwrap_or("it ended by itself"),
            findings.display(),
            log.display()
        );
    }
    Ok(format!("{reader}: {}", figures(&text)))
}

/// What libFuzzer says at its end.
fn figures(log: &str) -> String {
    let figure = |name: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", |rest| rest.trim_start_matches(':').trim())
    };
    format!(
        "{} inputs, {} kept, {} MB at most, no finding",
        figure("stat::number_of_executed_units"),
        figure("stat::new_units_added"),
        figure("stat::peak_rss_mb")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_libfuzzers_own() {
        let log = "x\nstat::number_of_executed_units: 123\nstat::new_units_added:         4\nstat::peak_rss_mb:             56\n";
        assert_eq!(figures(log), "123 inputs, 4 kept, 56 MB at most, no finding");
        assert_eq!(figures(""), "? inputs, ? kept, ? MB at most, no finding");
    }
}
