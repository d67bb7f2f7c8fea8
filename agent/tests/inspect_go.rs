//! The inspect stage against real Go binaries, built here, and against what runs in them.
//!
//! Needs Go and gcc in PATH, which `cargo xtask test` sees to. Go fetches the oldest and the newest version that are supported
//! through its module proxy (`WHYWAIT_GO_VERSIONS=1.20.14,1.25.1` for others).

#[path = "common/go_build.rs"]
mod go_build;

use std::path::Path;
use std::process::Stdio;

use agent::inspect::{
    Arch, ElfKind, GlobalsSource, GoGlobals, GoHook, GoImage, OffsetsSource, SiteCost, TlsProof, inspect,
};
use go_build::{Live, build, check_live, check_sites, go, go_image};

/// Function, file and line as `go tool addr2line` has them, at the start and within each of many functions.
fn check_symbols(toolchain: &str, path: &Path, image: &GoImage) {
    use std::io::Write;
    let file = &std::fs::File::open(path).expect("the binary");
    let start = image
        .symbols
        .function_range(file, image.sites[&GoHook::Execute].as_ref().expect("execute").vaddr)
        .expect("a range")
        .start;
    let mut addresses = Vec::new();
    let mut at = start;
    while let Some(range) = image
        .symbols
        .function_range(file, at)
        .filter(|_| addresses.len() < 4000)
    {
        addresses.extend([range.start, range.start + (range.end - range.start) / 2, range.end - 1]);
        at = range.end;
    }
    assert!(addresses.len() > 1000, "{}", addresses.len());
    let mut tool = go(toolchain)
        .args(["tool", "addr2line"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("addr2line");
    let mut input = tool.stdin.take().expect("its input");
    let text: String = addresses.iter().map(|a| format!("{a:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = tool.wait_with_output().expect("its output");
    writer.join().expect("a writer").expect("written");
    let output = String::from_utf8(output.stdout).expect("text");
    let mut lines = output.lines();
    for address in addresses {
        let (function, place) = (lines.next().expect("a function"), lines.next().expect("a place"));
        let frame = image.symbols.lookup(file, address).expect("a frame");
        // addr2line takes names from .symtab, where assembly functions carry their ABI.
        let function = function.trim_end_matches(".abi0");
        // Padding and the linker's markers have no line: a negative number there, 0 here.
        let (file, line) = place.rsplit_once(':').expect("file and line");
        let place = format!("{file}:{}", line.parse::<i64>().expect("a line").max(0));
        assert_eq!(
            (
                frame.function.as_str(),
                format!("{}:{}", frame.file, frame.line).as_str()
            ),
            (function, place.as_str()),
            "{address:#x}"
        );
    }
    assert_eq!(image.symbols.lookup(file, 0), None);
    assert_eq!(image.symbols.lookup(file, u64::MAX), None);
}

#[test]
fn a_default_build_is_known_whole() {
    let path = build("default", "local", &[], &[("CGO_ENABLED", "0")]);
    let (bytes, image) = go_image(&path);
    assert_eq!(image.module.as_deref(), Some("example.org/facts"));
    assert_eq!(
        (image.cgo, image.stripped, image.elf.kind, image.elf.is_static),
        (false, false, ElfKind::Exec, true)
    );
    let tls = image.tls_g.clone().expect("TLS");
    assert_eq!((tls.offset, tls.proof), (-8, TlsProof::Displacement));
    check_sites(&bytes, &image);
    check_symbols("local", &path, &image);
    check_live(&path, &image);
}

#[test]
fn a_pie_is_known_whole() {
    let path = build("pie", "local", &["-buildmode=pie"], &[("CGO_ENABLED", "0")]);
    let (bytes, image) = go_image(&path);
    assert_eq!(image.elf.kind, ElfKind::Pie);
    assert_eq!(image.tls_g.as_ref().map(|t| t.offset), Ok(-8));
    check_sites(&bytes, &image);
    check_live(&path, &image);
}

#[test]
fn an_externally_linked_build_with_cgo_is_known_whole() {
    for (name, flags) in [
        ("cgo", &["-tags", "netcgo", "-ldflags=-linkmode=external"][..]),
        ("cgo-pie", &["-buildmode=pie", "-ldflags=-linkmode=external"]),
    ] {
        let path = build(name, "local", flags, &[("CGO_ENABLED", "1")]);
        let (bytes, image) = go_image(&path);
        assert!(image.cgo && !image.elf.is_static);
        let tls = image.tls_g.clone().expect("TLS");
        eprintln!("{name}: {tls:?} {:?}", image.elf.kind);
        check_sites(&bytes, &image);
        check_live(&path, &image);
    }
}

/// The C linker puts g beside C's own thread-local variables; the g found there must be the thread's.
#[test]
fn the_current_g_is_where_the_code_says() {
    let external = "-ldflags=-linkmode=external";
    for (name, flags) in [("tls", &[external][..]), ("tls-pie", &["-buildmode=pie", external])] {
        let path = build(name, "local", flags, &[("CGO_ENABLED", "1")]);
        let (_, image) = go_image(&path);
        let tls = image.tls_g.clone().expect("TLS");
        let live = Live::start(&path, &image);
        let o = image.offsets.as_ref().expect("offsets");
        let g = live.word(live.fact("base").wrapping_add_signed(tls.offset), 8);
        let m = live.word(g + o.g.m.offset, o.g.m.size);
        assert_eq!(
            live.word(m + o.m.procid.offset, o.m.procid.size),
            live.fact("tid"),
            "{tls:?}"
        );
        let curg = live.word(m + o.m.curg.offset, o.m.curg.size);
        assert_eq!(live.word(curg + o.g.goid.offset, 8), 1);
        eprintln!("{name}: {tls:?}");
    }
}

/// No symbols, no DWARF: offsets from the table, globals from the code, both as the twin with symbols has them.
#[test]
fn a_stripped_build_is_known_as_well_as_its_twin() {
    for (name, toolchain, extra) in [
        ("twin", "local", &[][..]),
        ("twin-pie", "local", &["-buildmode=pie"]),
        ("twin-1.18.10", "go1.18.10", &[]),
        ("twin-1.27.4", "go1.27.4", &[]),
    ] {
        let env = [("CGO_ENABLED", "0")];
        let (_, twin) = go_image(&build(name, toolchain, extra, &env));
        let stripped = [extra, &["-ldflags=-s -w"]].concat();
        let path = build(&format!("{name}-stripped"), toolchain, &stripped, &env);
        let (bytes, image) = go_image(&path);
        assert!(image.stripped);
        assert_eq!(image.offsets_source, OffsetsSource::Table);
        assert_eq!(image.globals_source, GlobalsSource::Code);
        assert_eq!(image.offsets, twin.offsets);
        let (found, known) = (
            image.globals.as_ref().expect("globals"),
            twin.globals.as_ref().expect("the twin's"),
        );
        same_distances(found, known);
        check_sites(&bytes, &image);
        check_live(&path, &image);
    }
}

/// As on amd64, but that a site may stand on the stack check's own branch, and that g is in a register.
#[test]
fn an_arm64_build_is_known_as_well_as_its_twin() {
    for (name, toolchain) in [
        ("arm64", "local"),
        ("arm64-1.18.10", "go1.18.10"),
        ("arm64-1.27.4", "go1.27.4"),
    ] {
        let env = [("CGO_ENABLED", "0"), ("GOARCH", "arm64")];
        let (bytes, twin) = go_image(&build(name, toolchain, &[], &env));
        assert_eq!(twin.arch, Arch::Arm64);
        assert_eq!(twin.tls_g.as_ref().map(|tls| tls.proof), Ok(TlsProof::Register));
        check_arm64_sites(&bytes, &twin);
        let path = build(&format!("{name}-stripped"), toolchain, &["-ldflags=-s -w"], &env);
        let (bytes, image) = go_image(&path);
        assert_eq!(image.offsets_source, OffsetsSource::Table);
        assert_eq!(image.offsets, twin.offsets);
        assert_eq!(image.globals_source, GlobalsSource::Code);
        let (found, known) = (
            image.globals.as_ref().expect("globals"),
            twin.globals.as_ref().expect("the twin's"),
        );
        same_distances(found, known);
        check_arm64_sites(&bytes, &image);
    }
}

fn check_arm64_sites(bytes: &[u8], image: &GoImage) {
    for hook in GoHook::ALL {
        let site = image.sites[&hook].as_ref().unwrap_or_else(|e| panic!("{hook:?}: {e}"));
        let at = site.file_offset as usize;
        assert_eq!(&bytes[at..at + 4], site.bytes, "{hook:?}");
        assert_eq!(site.cost, SiteCost::Emulated, "{hook:?}");
        // Before go1.20 the compiler has it inline, where there are no arguments.
        let is_inline = site.function == "runtime.casgstatus";
        let needed = if is_inline {
            Default::default()
        } else {
            hook.needed(image.arch)
        };
        assert_eq!(site.args, needed, "{hook:?}");
    }
}

/// Without symbols the linker lays out the data elsewhere, but all of it by the same distance at most a section.
fn same_distances(found: &GoGlobals, known: &GoGlobals) {
    let gc = |variable: Option<u64>| Vec::from_iter(variable);
    let sections = |g: &GoGlobals| {
        [
            [vec![g.sched, g.work, g.allgs, g.allp], gc(g.heap), gc(g.sweep)].concat(),
            [
                vec![g.memstats, g.gc_controller, g.allglen, g.gomaxprocs, g.gcphase, g.iscgo],
                gc(g.limiter),
                // go1.18 has another one, elsewhere.
                gc(g.scavenge.filter(|_| g.limiter.is_some())),
            ]
            .concat(),
        ]
        .map(|addresses| -> Vec<u64> { addresses.iter().map(|at| at.wrapping_sub(addresses[0])).collect() })
    };
    assert_eq!(sections(found), sections(known));
    assert!(found.heap.is_some() && found.sweep.is_some());
    let size = |g: &GoGlobals| g.wait_reason_strings.map(|table| table.size);
    assert_eq!(size(found), size(known));
}

/// The versions differ, or the experiment may move fields: an error that says what was found and what is known.
#[test]
fn a_stripped_build_of_an_unknown_version_says_so() {
    let env = [("CGO_ENABLED", "0")];
    let path = build("unknown", "local", &["-ldflags=-s -w"], &env);
    let mut bytes = std::fs::read(&path).expect("the binary");
    let (_, image) = go_image(&path);
    let known = image.version.raw.clone().into_bytes();
    let places: Vec<usize> = (0..bytes.len() - known.len())
        .filter(|at| bytes[*at..].starts_with(&known))
        .collect();
    for at in places {
        // go1.26.8 → go1.96.8
        bytes[at + 4] = b'9';
    }
    let image = inspect(&bytes).expect("an image").expect("a runtime");
    let image = image.downcast_ref::<GoImage>().expect("Go");
    let error = image.offsets.as_ref().expect_err("no offsets").to_string();
    for part in [&*image.version.raw, "go1.18 to go1.27", "no such release"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[test]
fn other_toolchains_are_known_whole() {
    let versions = std::env::var("WHYWAIT_GO_VERSIONS").unwrap_or_else(|_| "1.18.10,1.27.4".to_owned());
    for version in versions.split(',') {
        let toolchain = format!("go{version}");
        let path = build(version, &toolchain, &[], &[("CGO_ENABLED", "0")]);
        let (bytes, image) = go_image(&path);
        assert_eq!(image.version.raw, toolchain);
        check_sites(&bytes, &image);
        check_symbols(&toolchain, &path, &image);
        check_live(&path, &image);
    }
}

/// Every prefix of, and many changes to, a real binary: an answer, never a panic.
#[test]
fn damaged_binaries_are_errors() {
    let flags = ["-ldflags=-compressdwarf=false"];
    let path = build("damaged", "local", &flags, &[("CGO_ENABLED", "0")]);
    let bytes = std::fs::read(path).expect("the binary");
    for step in 0..64 {
        let _ = inspect(&bytes[..bytes.len() * step / 64]);
    }
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut whole = 0;
    for round in 0..200 {
        let mut damaged = bytes.clone();
        for _ in 0..1 << (round % 12) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 16) as usize % damaged.len();
            // Every fourth round only headers are hit.
            damaged[if round % 4 == 0 { at % 4096 } else { at }] = (random >> 56) as u8;
        }
        whole += usize::from(matches!(inspect(&damaged), Ok(Some(_))));
    }
    assert!(
        whole > 50,
        "only {whole} of the damaged binaries were read at all: the test shows little"
    );
}
