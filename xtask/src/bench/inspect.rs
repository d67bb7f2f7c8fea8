//! How long the agent takes to inspect an executable, by its size: files that are on the machine anyway.

use std::{
    collections::HashSet,
    fmt::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;

use super::{
    plot::{self, Chart, Curve},
    service,
};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Inspections of each file
    #[arg(long, default_value_t = 5)]
    times: usize,
    /// Take the agent and the services as they are built; what inspects is built all the same
    #[arg(long)]
    as_built: bool,
    /// Inspect these files too
    files: Vec<PathBuf>,
}

/// Files in PATH of at least this size are inspected whatever they are.
const LARGE: u64 = 20 << 20;
/// What ends in .so and is smaller may be a script for the linker.
const OBJECT: u64 = 1 << 20;
const MB: f64 = 1e6;

/// What the example prints of a file.
#[derive(Deserialize)]
struct Inspected {
    file: String,
    bytes: f64,
    found: String,
    median_ms: f64,
    peak_growth_bytes: f64,
    kept_bytes: f64,
}

pub(super) fn run(options: Options) -> Result<()> {
    if options.times == 0 {
        bail!("--times starts at 1");
    }
    let (agent, demo) = service::programs(options.as_built)?;
    progress::step(
        "Building what inspects",
        &mut sh::cargo(&["build", "--release", "--package", "agent", "--example", "inspect"]),
    )?;
    let mut found = vec![agent];
    found.extend(["go-shop", "rust-stock", "otelcol"].map(|name| demo.join(name)));
    found.extend(rust().into_iter().chain(go()).chain(large()).chain(options.files));
    let mut rows: Vec<Inspected> = Vec::new();
    for file in distinct(found) {
        progress::note(&format!("inspecting {}", file.display()));
        let mut inspect = sh::cmd(
            sh::target().join("release/examples/inspect"),
            &[&options.times.to_string()],
        );
        let line = sh::capture(inspect.arg(&file))?;
        rows.push(serde_json::from_str(&line).with_context(|| format!("it printed {line}"))?);
    }
    service::keep("inspect.svg", &picture(&rows)?)?;
    service::publish("inspect.md", &report(rows, options.times))
}

fn picture(rows: &[Inspected]) -> Result<String> {
    const OTHERS: &str = "neither, or refused";
    let kind = |row: &Inspected| match row.found.as_str() {
        found if found.starts_with("go1.") => "Go",
        found if found.starts_with("tokio") => "tokio",
        _ => OTHERS,
    };
    let curve = |name| {
        let points = rows.iter().filter(|row| kind(row) == name);
        Curve {
            name,
            points: points.map(|row| (row.bytes / MB, row.median_ms)).collect(),
            joined: false,
        }
    };
    plot::chart_of(&Chart {
        title: "Time to inspect an executable; the line is the bar, 1.5 s",
        x: "MB",
        y: "ms",
        curves: ["Go", "tokio", OTHERS].map(curve).into(),
        bar: Some(1500.0),
        logarithmic: true,
    })
}

/// Cargo itself, not the proxy of rustup that PATH has, and the shared objects that are the compiler.
fn rust() -> Vec<PathBuf> {
    let Ok(sysroot) = sh::capture(&mut sh::cmd("rustc", &["--print", "sysroot"])) else {
        return Vec::new();
    };
    let sysroot = Path::new(&sysroot);
    let mut files = vec![sysroot.join("bin/cargo"), sysroot.join("bin/rustc")];
    let objects = at_least(OBJECT, listed(&sysroot.join("lib")));
    files.extend(objects.filter(|file| file.extension().is_some_and(|end| end == "so")));
    files
}

/// The Go toolchain's own programs.
fn go() -> Vec<PathBuf> {
    let Ok(root) = sh::capture(&mut sh::cmd("go", &["env", "GOROOT"])) else {
        return Vec::new();
    };
    let root = Path::new(&root);
    let tools = root.join("pkg/tool/linux_amd64");
    let mut files = ["go", "gofmt"].map(|name| root.join("bin").join(name)).to_vec();
    files.extend(["asm", "link", "compile"].map(|name| tools.join(name)));
    files
}

fn large() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let files = std::env::split_paths(&path).flat_map(|folder| listed(&folder));
    at_least(LARGE, files).collect()
}

fn at_least(size: u64, files: impl IntoIterator<Item = PathBuf>) -> impl Iterator<Item = PathBuf> {
    let large = move |file: &PathBuf| std::fs::metadata(file).is_ok_and(|meta| meta.len() >= size);
    files.into_iter().filter(large)
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Files that exist, each once however many names, hard links among them, lead to it.
fn distinct(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let real = files.into_iter().filter_map(|file| file.canonicalize().ok());
    real.filter(|file| {
        let meta = std::fs::metadata(file);
        meta.is_ok_and(|meta| meta.is_file() && seen.insert((meta.dev(), meta.ino())))
    })
    .collect()
}

fn report(mut rows: Vec<Inspected>, times: usize) -> String {
    rows.sort_by(|one, other| one.bytes.total_cmp(&other.bytes));
    let mut text = format!(
        "# Time to inspect an executable\nMeasured by `cargo xtask bench inspect`: medians of {times} inspections, with the files in \
         the page cache and one process per file. {}. The agent inspects an executable once, however many processes run it, and then \
         attaches. MB are 10^6 bytes. Peak memory is all memory for the inspection, including the parts of the file that are read; \
         kept is what stays while the program is watched. A Rust program is recognised if it contains tokio.\n\n![Time by \
         size](inspect.svg)\n\n| file | MB | ms | MB/s | ms/MB | peak memory, MB | kept, MB | found \
         |\n|---|---|---|---|---|---|---|---|\n",
        service::machine()
    );
    for row in rows {
        let (size, ms) = (row.bytes / MB, row.median_ms);
        let _ = writeln!(
            text,
            "| {} | {size:.1} | {ms:.2} | {:.0} | {:.2} | {:.1} | {:.1} | {} |",
            row.file,
            size / ms * 1e3,
            ms / size,
            row.peak_growth_bytes / MB,
            row.kept_bytes / MB,
            row.found.replace('|', "\\|"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_rates_and_small_files_come_first() {
        let row = |file: &str, bytes, found: &str| Inspected {
            file: file.to_owned(),
            bytes,
            found: found.to_owned(),
            median_ms: 20.0,
            peak_growth_bytes: 3e6,
            kept_bytes: 1e6,
        };
        let text = report(vec![row("big", 10e6, "none"), row("small", 1e6, "go1.26.0")], 5);
        let rows: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(rows[0], "| big | 10.0 | 20.00 | 500 | 2.00 | 3.0 | 1.0 | none |");
        assert_eq!(rows[1], "| small | 1.0 | 20.00 | 50 | 20.00 | 3.0 | 1.0 | go1.26.0 |");
    }

    #[test]
    fn what_does_not_exist_is_left_out_and_nothing_comes_twice() {
        let here = sh::root().join("Cargo.toml");
        let twice = vec![
            here.clone(),
            sh::root().join("xtask/../Cargo.toml"),
            sh::root().join("none"),
        ];
        assert_eq!(distinct(twice), [here.canonicalize().unwrap()]);
    }
}
