//! Every Go version times every kind of build: what is found in the file and what is read of the process, against symbols,
//! runtime/metrics and gctrace; and every signal, against a program that counts what it does, and its execution trace. CI has the
//! oldest, the newest and the machine's own version in a few builds; all of it by `cargo xtask test --matrix`, which also writes
//! docs/go-support.md. On arm64 it runs in VMs, on builds that were made across.

mod common;
#[path = "common/go_build.rs"]
mod go_build;
#[path = "common/go_life.rs"]
mod go_life;
#[path = "common/go_signals.rs"]
mod go_signals;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
};

use agent::{
    inspect::{GlobalsSource, GoGlobals, GoImage, OffsetsSource},
    memory::Memory,
    runtime::go::GoRuntime,
};
use go_build::{brought, build, build_in, check_live, check_sites, go_image};
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

impl Kind {
    /// A C compiler and a C library for the machine.
    fn needs_c(&self) -> bool {
        (self.env)(u32::MAX).is_some_and(|env| env.contains(&("CGO_ENABLED", "1")))
    }

    /// A build's name, and the flags that make it.
    fn command(&self, version: &str, program: &str, strip: &str) -> (String, Vec<String>) {
        let letters = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name = format!("{program} {version} {} {strip}", self.name);
        let linker = format!("-ldflags={} {strip}", self.linker);
        let flags = self.flags.iter().map(|flag| (*flag).to_owned());
        (name.chars().map(letters).collect(), flags.chain([linker]).collect())
    }
}

const PURE: fn(u32) -> Option<Env> = |_| Some(&[("CGO_ENABLED", "0")]);
const CGO: fn(u32) -> Option<Env> = |_| Some(&[("CGO_ENABLED", "1")]);

const KINDS: [Kind; 9] = [
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
    // Until go1.25 GNU ld puts pclntab among all that the loader relocates, as lld does.
    Kind {
        name: "PIE, by gcc",
        env: CGO,
        flags: &["-buildmode=pie", "-tags=netcgo"],
        linker: "-linkmode=external",
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

/// What a line of docs/go-support.md begins with where it is printed: `cargo xtask test --matrix` takes them from there, also out of a VM.
const LINE: &str = "go-support.md: ";

/// What CI tries: (version, kind).
const FAST: [(&str, &str); 6] = [
    ("go1.18.10", "default"),
    ("go1.18.10", "PIE"),
    ("go1.18.10", "PIE, by gcc"),
    ("go1.27.4", "default"),
    ("local", "PIE"),
    ("local", "cgo"),
];

#[test]
fn every_build_of_every_version_is_known() {
    let whole = std::env::var_os("WHYWAIT_GO_MATRIX").is_some();
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for version in versions() {
        let mut row = Row {
            version: version.to_owned(),
            cells: Vec::new(),
        };
        for kind in kinds() {
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
        print(&rows);
    }
    assert!(failures.is_empty(), "{failures:#?}; what failed is above");
}

/// What a VM of another machine (GOARCH) tests, built here: a folder for each version below WHYWAIT_GO_BUILDS_TO.
#[test]
#[ignore = "part of `cargo xtask test --matrix --arm64`"]
fn builds_for_another_machine() {
    let folder = std::env::var_os("WHYWAIT_GO_BUILDS_TO").expect("where to");
    for version in versions() {
        let folder = Path::new(&folder).join(version);
        for kind in KINDS.iter().filter(|kind| !kind.needs_c()) {
            let Some(env) = (kind.env)(minor(version)) else {
                continue;
            };
            for strip in TWINS {
                for program in ["matrix", "life"] {
                    let (name, flags) = kind.command(version, program, strip);
                    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                    build_in(&folder, &name, version, &flags, env);
                }
            }
        }
    }
}

/// All, or those that are asked for.
fn versions() -> impl Iterator<Item = &'static str> {
    let asked = std::env::var("WHYWAIT_GO_VERSIONS").ok();
    let is_asked = move |version: &&str| {
        asked
            .as_ref()
            .is_none_or(|asked| asked.split(',').any(|one| one == *version))
    };
    VERSIONS.into_iter().filter(is_asked)
}

/// All that this machine can have.
fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| brought().is_none() || !kind.needs_c())
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
        let (name, flags) = kind.command(version, program, strip);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
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
    let (allm, c_calls) = (g.allm.expect("allm"), g.c_calls.expect("ncgocall"));
    [
        vec![g.sched, g.work, g.allgs, g.allp, allm],
        vec![g.memstats, g.gc_controller, g.allglen, g.gomaxprocs, g.gcphase, c_calls],
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

/// The lines of docs/go-support.md: the table's, what is lacking, and how far a sum of a state was from the trace's at most, %.
fn print(rows: &[Row]) {
    let names: Vec<&str> = kinds().map(|kind| kind.name).collect();
    println!("{LINE}| version | {} |", names.join(" | "));
    for row in rows {
        let cells: Vec<String> = row.cells.iter().map(Cell::text).collect();
        println!("{LINE}| {} | {} |", row.version, cells.join(" | "));
    }
    let lives = || rows.iter().flat_map(|row| &row.cells).filter_map(Cell::lives).flatten();
    let lacks: BTreeSet<&(String, String)> = lives().flat_map(|life| &life.less).collect();
    for (what, why) in lacks {
        println!("{LINE}- `{what}`: {why}");
    }
    let furthest = lives().map(|life| life.off_by).fold(0.0, f64::max);
    println!("{LINE}furthest {:.2}", furthest * 100.0);
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
