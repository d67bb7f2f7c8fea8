//! Every Go version times every kind of build: what is found in the file and what is read of the process, against symbols,
//! runtime/metrics and gctrace; and what each signal counts, against a program that counts what it does. CI has the oldest, the newest and the machine's own version in a few builds; all of it by
//! `cargo xtask test --matrix`, which also writes docs/go-support.md.

mod common;
#[path = "common/go_build.rs"]
mod go_build;
#[path = "common/go_life.rs"]
mod go_life;

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
};

use agent::{
    golang::GoRuntime,
    inspect::{GlobalsSource, GoGlobals, GoImage, OffsetsSource},
    memory::Memory,
};
use go_build::{build, check_live, check_sites, go_image};
use go_life::Life;

/// Newest patches, and the machine's own.
const VERSIONS: [&str; 11] = [
    "go1.18.10",
    "go1.19.13",
    "go1.20.14",
    "go1.21.13",
    "go1.22.12",
    "go1.23.12",
    "go1.24.13",
    "go1.25.14",
    "go1.26.11",
    "go1.27.4",
    "local",
];

/// A kind of build. Each is built with and without symbols.
struct Kind {
    name: &'static str,
    /// By minor version; None where there is no such build.
    env: fn(u32) -> Option<Env>,
    flags: &'static [&'static str],
    linker: &'static str,
}

type Env = &'static [(&'static str, &'static str)];

const PURE: fn(u32) -> Option<Env> = |_| Some(&[("CGO_ENABLED", "0")]);
const CGO: fn(u32) -> Option<Env> = |_| Some(&[("CGO_ENABLED", "1")]);

const KINDS: [Kind; 7] = [
    Kind {
        name: "default",
        env: PURE,
        flags: &[],
        linker: "",
    },
    Kind {
        name: "PIE",
        env: PURE,
        flags: &["-buildmode=pie"],
        linker: "",
    },
    Kind {
        name: "cgo",
        env: CGO,
        flags: &["-tags=netcgo"],
        linker: "-linkmode=external",
    },
    Kind {
        name: "-trimpath",
        env: PURE,
        flags: &["-trimpath"],
        linker: "",
    },
    Kind {
        name: "static, by gcc",
        env: CGO,
        flags: &["-tags=netcgo"],
        linker: "-linkmode=external -extldflags=-static",
    },
    Kind {
        name: "FIPS 140",
        env: |minor| (minor >= 24).then_some(&[("CGO_ENABLED", "0"), ("GOFIPS140", "latest")]),
        flags: &[],
        linker: "",
    },
    // The experiment that moves fields.
    Kind {
        name: "the other GC",
        env: |minor| match minor {
            ..25 => None,
            25 => Some(&[("CGO_ENABLED", "0"), ("GOEXPERIMENT", "greenteagc")]),
            _ => Some(&[("CGO_ENABLED", "0"), ("GOEXPERIMENT", "nogreenteagc")]),
        },
        flags: &[],
        linker: "",
    },
];
/// What CI tries: (version, kind).
const FAST: [(&str, &str); 5] = [
    ("go1.18.10", "default"),
    ("go1.18.10", "PIE"),
    ("go1.27.4", "default"),
    ("local", "PIE"),
    ("local", "cgo"),
];

#[test]
fn every_build_of_every_version_is_known() {
    let whole = std::env::var_os("WHYWAIT_GO_MATRIX").is_some();
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for version in VERSIONS {
        let mut row = Row {
            version: version.to_owned(),
            cells: Vec::new(),
        };
        for kind in &KINDS {
            if !whole && !FAST.contains(&(version, kind.name)) {
                continue;
            }
            let Some(env) = (kind.env)(minor(version)) else {
                row.cells.push(Cell::NoSuchBuild);
                continue;
            };
            match catch_unwind(AssertUnwindSafe(|| cell(version, kind, env))) {
                Ok(Some((found, lives))) => {
                    row.version = found;
                    for (life, strip) in lives.iter().flatten().zip(["", " -s -w"]) {
                        failures.extend(
                            life.wrong()
                                .iter()
                                .map(|wrong| format!("{version} {}{strip}: {wrong}", kind.name)),
                        );
                    }
                    row.cells.push(Cell::Full(lives));
                }
                Ok(None) => row.cells.push(Cell::DoesNotRun),
                Err(_) => {
                    row.cells.push(Cell::No);
                    failures.push(format!("{version} {}", kind.name));
                }
            }
        }
        rows.push(row);
    }
    if whole {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/go-support.md");
        std::fs::write(path, report(&rows)).expect("docs/go-support.md");
    }
    assert!(failures.is_empty(), "{failures:?}; what failed is above");
}

/// A version's row, and what came of each kind of build.
struct Row {
    version: String,
    cells: Vec<Cell>,
}

enum Cell {
    /// What the signals counted of the twins; None where they could not be watched.
    Full(Option<[Life; 2]>),
    DoesNotRun,
    NoSuchBuild,
    No,
}

/// 26 of go1.26.11; the machine's own is among the newest.
fn minor(version: &str) -> u32 {
    let number = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    number.map_or(u32::MAX, |number| number.parse().expect("a version"))
}

/// One kind of build with and without symbols; gives the version and what was counted, or None when what was built dies by
/// itself.
fn cell(version: &str, kind: &Kind, env: Env) -> Option<(String, Option<[Life; 2]>)> {
    let make = |program: &str, strip: &str| {
        let linker = format!("-ldflags={} {strip}", kind.linker);
        let flags = [kind.flags, &[linker.as_str()]].concat();
        let letters = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = format!("{program} {version} {} {strip}", kind.name)
            .chars()
            .map(letters)
            .collect();
        build(&name, version, &flags, env)
    };
    let (with, without) = (make("matrix", ""), make("matrix", "-s -w"));
    println!("{version} {}: {}", kind.name, without.display());
    let alone = Command::new(&with)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !alone.is_ok_and(|status| status.success()) {
        return None;
    }
    let (bytes, twin) = go_image(&with);
    assert_eq!(twin.offsets_source, OffsetsSource::Dwarf);
    check(&with, &bytes, &twin);
    let (bytes, image) = go_image(&without);
    assert_eq!(
        (image.offsets_source, image.globals_source),
        (OffsetsSource::Table, GlobalsSource::Code)
    );
    assert_eq!(image.offsets, twin.offsets, "the table, and the twin's DWARF");
    let found = image.globals.as_ref().expect("globals");
    let known = twin.globals.as_ref().expect("the twin's globals");
    assert_eq!(distances(found), distances(known), "the code, and the twin's symbols");
    check(&without, &bytes, &image);
    let raw = image.version.raw.clone();
    println!("{version} {}: {raw}, all as known", kind.name);
    let lives = common::privileged().then(|| ["", "-s -w"].map(|strip| go_life::watch(&make("life", strip))));
    println!("{version} {}: {lives:?}", kind.name);
    Some((raw, lives))
}

/// Within a section the linker lays out both twins alike.
fn distances(g: &GoGlobals) -> [Vec<u64>; 2] {
    [
        vec![g.sched, g.work, g.allgs, g.allp],
        vec![g.memstats, g.gc_controller, g.allglen, g.gomaxprocs, g.gcphase],
    ]
    .map(|addresses| addresses.iter().map(|at| at.wrapping_sub(addresses[0])).collect())
}

/// The process against runtime/metrics, and the agent's own reading of it against gctrace.
fn check(path: &Path, bytes: &[u8], image: &GoImage) {
    check_sites(bytes, image);
    check_live(path, image);
    let mut child = Command::new(path)
        .env("GODEBUG", "gctrace=1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let ready = output.lines().map_while(Result::ok).any(|line| line == "end");
    assert!(ready, "the program said nothing");
    let process = agent::discover::Process::read(child.id()).expect("the process");
    let bias = process.bias(&image.elf).expect("its bias");
    let runtime = GoRuntime::new(
        Memory::open(child.id()).expect("its memory"),
        bias,
        image.globals.clone().expect("globals"),
        image.offsets.clone().expect("offsets"),
    )
    .expect("a runtime");
    runtime.prove(&image.version.raw).expect("proved");
    let wrong = runtime.prove("go1.0");
    assert!(wrong.is_err(), "another version's runtime is refused");
    let snapshot = runtime.snapshot().expect("a snapshot");
    assert!(
        runtime.wait_reasons.iter().any(|name| name == "chan receive"),
        "wait reasons"
    );
    let _ = child.kill();
    let said = child.wait_with_output().expect("its end").stderr;
    let cycles = String::from_utf8_lossy(&said)
        .lines()
        .filter(|line| line.starts_with("gc "))
        .count();
    assert_eq!(snapshot.gc_cycles, cycles as u64, "GC cycles, and lines of gctrace");
}

fn report(rows: &[Row]) -> String {
    let kinds: Vec<String> = KINDS
        .iter()
        .map(|kind| format!("{} | {} -s -w", kind.name, kind.name))
        .collect();
    let mut text = "# Go builds that are known whole\nWritten by `cargo xtask test --matrix`, amd64. `does not run`: the program dies at its start, watched by \
         nobody (Go before 1.21, linked statically with this machine's C library). FIPS 140 is GOFIPS140=latest; the other GC is \
         GOEXPERIMENT=greenteagc in go1.25 and nogreenteagc after it.\n"
        .to_owned();
    let mut table = |title: &str, about: &str, of: &dyn Fn(&Life) -> String| {
        let _ = write!(
            text,
            "\n## {title}\n{about}\n\n| version | {} |\n|---|{}\n",
            kinds.join(" | "),
            "---|".repeat(KINDS.len() * 2)
        );
        for row in rows {
            let cell = |cell: &Cell| match cell {
                Cell::Full(Some(lives)) => lives.each_ref().map(of).join(" | "),
                Cell::Full(None) => "not watched | not watched".to_owned(),
                Cell::DoesNotRun => "does not run | does not run".to_owned(),
                Cell::NoSuchBuild => "– | –".to_owned(),
                Cell::No => "**no** | **no**".to_owned(),
            };
            let cells: Vec<String> = row.cells.iter().map(cell).collect();
            let _ = writeln!(text, "| {} | {} |", row.version, cells.join(" | "));
        }
    };
    table(
        "go.runtime",
        "`full`: the fields' offsets (DWARF; by version without it) and the variables' addresses (symbols; instructions without them) are the same in both \
         twins, hold in the process, and what is read there equals what runtime/metrics and gctrace say inside; every probe's place is proved.",
        &|_| "full".to_owned(),
    );
    table(
        "go.gc",
        "Cycles that became traces for each that the program asked for.",
        &|life| format!("{:.3}", life.cycles),
    );
    table(
        "go.sched",
        "Waits counted for each wait of the program's: 4000 in chan receive and chan send, 50 in sleep, 400 in IO wait.",
        &|life| format!("{:.3}, {:.3}, {:.3}", life.chan, life.sleep, life.io_wait),
    );
    table(
        "net.request",
        "Requests counted for each of 200: served, and made.",
        &|life| format!("{:.3}, {:.3}", life.served, life.called),
    );
    text
}
