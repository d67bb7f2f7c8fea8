//! Every Go version times every kind of build: what is found in the file, and what is read of the process, against symbols,
//! runtime/metrics and gctrace. CI has the oldest, the newest and the machine's own version in a few builds; all of it by
//! `cargo xtask test --matrix`, which also writes docs/go-support.md.

#[path = "common/go_build.rs"]
mod go_build;

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

/// A kind of build: its name, whether cgo is in it, and its flags. Each is built with and without symbols.
struct Kind {
    name: &'static str,
    cgo: &'static str,
    flags: &'static [&'static str],
    linker: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "default",
        cgo: "0",
        flags: &[],
        linker: "",
    },
    Kind {
        name: "PIE",
        cgo: "0",
        flags: &["-buildmode=pie"],
        linker: "",
    },
    Kind {
        name: "cgo",
        cgo: "1",
        flags: &["-tags=netcgo"],
        linker: "-linkmode=external",
    },
    Kind {
        name: "-trimpath",
        cgo: "0",
        flags: &["-trimpath"],
        linker: "",
    },
    Kind {
        name: "static, by gcc",
        cgo: "1",
        flags: &["-tags=netcgo"],
        linker: "-linkmode=external -extldflags=-static",
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
    let (mut rows, mut failures) = (String::new(), Vec::new());
    for version in VERSIONS {
        let mut cells = Vec::new();
        let mut named = version.to_owned();
        for kind in &KINDS {
            if !whole && !FAST.contains(&(version, kind.name)) {
                continue;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| cell(version, kind)));
            match outcome {
                Ok(Some(found)) => {
                    named = found;
                    cells.push("full | full");
                }
                Ok(None) => cells.push("does not run | does not run"),
                Err(_) => {
                    cells.push("**no** | **no**");
                    failures.push(format!("{version} {}", kind.name));
                }
            }
        }
        let _ = writeln!(rows, "| {named} | {} |", cells.join(" | "));
    }
    if whole {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/go-support.md");
        std::fs::write(path, report(&rows)).expect("docs/go-support.md");
    }
    assert!(failures.is_empty(), "{failures:?}; what failed is above");
}

/// One kind of build with and without symbols; gives the version, or None when what was built dies by itself.
fn cell(version: &str, kind: &Kind) -> Option<String> {
    let env = [("CGO_ENABLED", kind.cgo)];
    let make = |strip: &str| {
        let linker = format!("-ldflags={} {strip}", kind.linker);
        let flags = [kind.flags, &[linker.as_str()]].concat();
        let letters = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = format!("matrix {version} {} {strip}", kind.name)
            .chars()
            .map(letters)
            .collect();
        build(&name, version, &flags, &env)
    };
    let (with, without) = (make(""), make("-s -w"));
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
    Some(raw)
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

fn report(rows: &str) -> String {
    let kinds: Vec<String> = KINDS
        .iter()
        .map(|kind| format!("{} | {} -s -w", kind.name, kind.name))
        .collect();
    format!(
        "# Go builds that are known whole\nWritten by `cargo xtask test --matrix`, amd64. `full`: the fields' offsets (DWARF; by version without it) and \
         the variables' addresses (symbols; instructions without them) are the same in both twins, hold in the process, and what is read there \
         equals what runtime/metrics and gctrace say inside; every probe's place is proved. `does not run`: the program dies at its start, watched by nobody \
         (Go before 1.21, linked statically with this machine's C library).\n\n| version | {} |\n|---|{}\n{rows}",
        kinds.join(" | "),
        "---|".repeat(KINDS.len() * 2)
    )
}
