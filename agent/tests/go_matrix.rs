//! Every Go version times every kind of build: what is found in the file and what is read of the process, against symbols,
//! runtime/metrics and gctrace; and every signal, against a program that counts what it does, and its execution trace. CI has the
//! oldest, the newest and the machine's own version in a few builds; all of it by `cargo xtask test --matrix`, which also writes
//! docs/go-support.md.

mod common;
#[path = "common/go_build.rs"]
mod go_build;
#[path = "common/go_life.rs"]
mod go_life;
#[path = "common/go_signals.rs"]
mod go_signals;

use std::{
    collections::BTreeSet,
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

const KINDS: [Kind; 8] = [
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
    Kind {
        name: "the old map",
        env: |minor| matches!(minor, 24 | 25).then_some(&[("CGO_ENABLED", "0"), ("GOEXPERIMENT", "noswissmap")]),
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
const ABOUT: &str = "\
# Go builds and their signals
Written by `cargo xtask test --matrix`, amd64. A cell is two builds, with and without symbols and DWARF (`-ldflags=\"-s -w\"`), that are watched each with a
program that counts what it does. `full`: all signals of both are there, and equal to their oracles:

| signal | what is held against what |
|---|---|
| go.runtime | fields' offsets and variables' addresses, equal in both twins and true in the process; every number that is read, against runtime/metrics inside; GC cycles against lines of gctrace |
| go.goroutines | alive, all and by origin and wait reason, against runtime.NumGoroutine and what the program started: exact |
| go.gc | every cycle, what triggered it and who asked; both pauses to the nanosecond against debug.ReadGCStats |
| go.stw | every stop by reason and asker, against what was asked for, and all of them against /sched/pauses/total/other: exact |
| go.assist | time of mark assists, and whose they are, against the cycles' own sums and /cpu/classes/gc/mark/assist: within the 5 µs a cycle that the runtime drops |
| go.handoff | Ps taken by sysmon, against system calls that were made to sleep; since go1.22 against the execution trace's steals, within three at its ends |
| go.sched | waits by reason and yields against the program's count, waits and starts against the execution trace (golang.org/x/exp/trace): within 1 %, and four waits at the trace's own ends; time by state and wait reason against the trace: within 1 % of the goroutines' whole time, within 5 % for each function, at the best of three runs |
| net.connect, net.request | connects, and requests served and made: exact |

`does not run`: the program dies at its start, watched by nobody (Go before 1.21, linked statically with this machine's C library). `–`: there is no such build. FIPS 140 is
GOFIPS140=latest, the old map GOEXPERIMENT=noswissmap, the other GC GOEXPERIMENT=greenteagc in go1.25 and nogreenteagc after it.
";

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
                    for (life, strip) in lives.iter().flatten().zip(TWINS) {
                        let wrong = life.wrong.iter();
                        failures.extend(wrong.map(|wrong| format!("{version} {} {strip}: {wrong:?}", kind.name)));
                    }
                    row.cells.push(Cell::Known(lives));
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
    assert!(failures.is_empty(), "{failures:#?}; what failed is above");
}

/// The linker's flags by which twins differ.
const TWINS: [&str; 2] = ["", "-s -w"];

/// A version's row, and what came of each kind of build.
struct Row {
    version: String,
    cells: Vec<Cell>,
}

enum Cell {
    /// What came of the twins' signals; None where they could not be watched.
    Known(Option<[Life; 2]>),
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
    let fields = image.offsets.as_ref().expect("offsets");
    let others = |g: &GoGlobals| {
        [
            (g.limiter, fields.limiter.enabled),
            (g.heap, fields.heap.pages_in_use),
            (g.sweep, fields.sweep.active_state),
            (g.scavenge, fields.scavenge.gc_percent_goal),
        ]
        .map(|(home, field)| field.is_some() && home.is_some())
    };
    assert_eq!(others(found), others(known), "the GC's other variables");
    check(&without, &bytes, &image);
    let raw = image.version.raw.clone();
    println!("{version} {}: {raw}, all as known", kind.name);
    let watch = |strip| go_life::watch(&make("life", strip), image.version.minor);
    let lives = common::privileged().then(|| TWINS.map(watch));
    println!("{version} {}: {lives:?}", kind.name);
    // The version's own name: experiments are the column's.
    Some((raw.split([' ', '-']).next().unwrap_or_default().to_owned(), lives))
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
    let kinds = KINDS.map(|kind| kind.name).join(" | ");
    let mut text = format!("{ABOUT}\n| version | {kinds} |\n|---|{}\n", "---|".repeat(KINDS.len()));
    let mut worst: f64 = 0.0;
    let mut notes = BTreeSet::new();
    for row in rows {
        let cells: Vec<String> = row.cells.iter().map(Cell::text).collect();
        let _ = writeln!(text, "| {} | {} |", row.version, cells.join(" | "));
        for life in row.cells.iter().filter_map(Cell::lives).flatten() {
            worst = worst.max(life.off_by);
            notes.extend(life.less.iter().cloned());
        }
    }
    let notes: Vec<String> = notes.iter().map(|(what, why)| format!("- `{what}`: {why}")).collect();
    let _ = writeln!(
        text,
        "\nWhat a version lacks, in the agent's own words:\n{}\n\nNo sum of a state was further from the trace's than {:.2} % of the goroutines' whole time.",
        notes.join("\n"),
        worst * 100.0
    );
    text
}

impl Cell {
    fn lives(&self) -> Option<&[Life; 2]> {
        match self {
            Self::Known(lives) => lives.as_ref(),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Known(None) => "not watched".to_owned(),
            Self::DoesNotRun => "does not run".to_owned(),
            Self::NoSuchBuild => "–".to_owned(),
            Self::No => "**no**".to_owned(),
            Self::Known(Some(lives)) => {
                let [with, without] = lives.each_ref().map(Life::cell);
                if with == without {
                    with
                } else {
                    format!("{with}; stripped: {without}")
                }
            }
        }
    }
}
