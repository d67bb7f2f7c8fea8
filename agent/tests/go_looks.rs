//! What looks at a Go process tell, without a probe: goroutines by their names, after a burst of others too; and runtimes that are
//! not in the executable, or are others than they seem.

#[path = "common/go_build.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_build;
#[path = "common/peak.rs"]
mod peak;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek as _, SeekFrom, Write as _},
    process::{Child, Command, Stdio},
};

use agent::{
    discover::{Process, objects},
    inspect::{InspectError, inspect_file, runtime_of_object},
    memory::Memory,
    runtime::go::GoRuntime,
};
use go_build::{build, go_image};
use peak::peak;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// A child that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// A program that says "end" when it stands still.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        assert!(output.lines().map_while(Result::ok).any(|line| line == "end"));
        Self(child)
    }
}

/// Goroutines by the function they were started with, of package main, and how many were left out.
fn alive(name: &str, toolchain: &str, args: &[&str]) -> (BTreeMap<String, usize>, u64) {
    let path = build(name, toolchain, &[], &[("CGO_ENABLED", "0")]);
    let (_, image) = go_image(&path);
    let running = Running::start(Command::new(&path).args(args));
    let process = Process::read(running.0.id()).expect("the process");
    let bias = process.bias(&image.elf).expect("its bias");
    let (globals, offsets) = (image.globals.clone(), image.offsets.clone());
    let memory = Memory::open(process.pid).expect("its memory");
    let runtime =
        GoRuntime::new(memory, bias, globals.expect("globals"), offsets.expect("offsets")).expect("a runtime");
    let walk = runtime.walk().expect("a walk");
    let file = File::open(&path).expect("the file");
    let mut counts = BTreeMap::new();
    for seen in walk.goroutines {
        let start = image.symbols.start(&file, seen.startpc - bias).expect("a function");
        let function = image.symbols.lookup(&file, start).expect("a name").function;
        if function.starts_with("main.") {
            *counts.entry(function).or_default() += 1;
        }
    }
    (counts, walk.left_out)
}

/// As the execution trace calls them (runtime/tracestack.go, startPCForTrace).
const NAMES: [&str; 4] = ["main.(*shop).sell", "main.größe", "main.plain", "main.shop.open"];

#[track_caller]
fn check_names(counts: &BTreeMap<String, usize>) {
    // Of what a function is generic in, and how its maker's name and a number make a closure's, versions have ways of their own.
    let known = |name: &str| {
        let closure = name.contains(".func");
        NAMES.contains(&name) || closure || name.starts_with("main.generic[")
    };
    let of_names = counts.iter().filter(|(name, _)| known(name));
    assert_eq!(
        of_names.map(|(_, count)| *count).collect::<Vec<_>>(),
        [3; 6],
        "{counts:?}"
    );
    assert!(counts.keys().all(|name| !name.contains("gowrap")), "{counts:?}");
}

#[test]
fn goroutines_are_called_as_the_runtime_calls_them() {
    for toolchain in ["go1.18.10", "go1.27.4", "local"] {
        let (counts, left_out) = alive(&format!("names-{toolchain}"), toolchain, &[]);
        check_names(&counts);
        assert_eq!((counts.len(), left_out), (6, 0), "{counts:?}");
    }
}

/// A table of more entries than goroutines are taken note of, nearly all of them dead.
#[test]
fn the_dead_do_not_use_up_the_look() {
    let (counts, left_out) = alive("names-burst", "local", &["120000"]);
    assert_eq!((counts.get("main.late"), left_out), (Some(&50), 0), "{counts:?}");
    check_names(&counts);
}

/// A Go library in a process that is not Go's: it is named, with the object that it is in.
#[test]
fn a_runtime_in_a_shared_object_is_found() {
    let library = build("shared", "local", &["-buildmode=c-shared"], &[("CGO_ENABLED", "1")]);
    let found = runtime_of_object(&File::open(&library).expect("the library")).expect("a runtime");
    assert!(found.starts_with("a Go runtime (go1."), "{found}");
    // It becomes no other program: between an exec and the dynamic linker's work nothing is mapped yet.
    let waiting = || {
        let mut command = Command::new("sh");
        command.args(["-c", "echo end; read line"]).stdin(Stdio::piped());
        command
    };
    let running = Running::start(waiting().env("LD_PRELOAD", &library));
    let process = Process::read(running.0.id()).expect("the process");
    let Some(InspectError::InObject { runtime, object }) = objects::runtime_in(&process) else {
        panic!("no runtime is found in it");
    };
    assert_eq!((runtime, object), (found, library.display().to_string()));
    drop(running);
    let plain = Running::start(&mut waiting());
    let process = Process::read(plain.0.id()).expect("the process");
    assert_eq!(objects::runtime_in(&process), None);
}

/// What lies in a mount namespace of the process' own: libraries of one inode number on file systems of their own, one of them Go's, which
/// is also on overlayfs. The linker maps them in their order, or the other way round.
const ELSEWHERE: &str = r#"
    cd "$0" && mkdir merged && for of in first go last upper; do mkdir $of && mount -t tmpfs none $of || exit; done &&
    cp "$1" first/lib.so && cp "$2" go/lib.so && cp "$1" last/lib.so && mkdir upper/files upper/work &&
    mount -t overlay overlay -o lowerdir=go,upperdir=upper/files,workdir=upper/work merged && touch merged/lib.so &&
    test "$(stat --format=%i first/lib.so go/lib.so last/lib.so | uniq | wc --lines)" = 1 &&
    LD_PRELOAD="$0/first/lib.so $0/$3/lib.so $0/last/lib.so" exec sh -c "echo end; read line"
"#;

/// A runtime in a shared object is found where the object lies on a file system of the container's, without leave to read the process'
/// mapped files themselves too.
#[test]
fn a_shared_object_is_told_from_others_wherever_it_lies() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
        eprintln!("SKIPPED: needs root");
        return;
    }
    let library = build(
        "shared-elsewhere",
        "local",
        &["-buildmode=c-shared"],
        &[("CGO_ENABLED", "1")],
    );
    let plain = library.with_file_name("plain.so");
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-x", "c", "-o"]).arg(&plain).arg("-");
    let mut gcc = gcc.stdin(Stdio::piped()).spawn().expect("gcc");
    let mut source = gcc.stdin.take().expect("its input");
    source
        .write_all(b"int nothing(void) { return 0; }")
        .expect("its source");
    drop(source);
    assert!(gcc.wait().expect("gcc").success());
    for place in ["go", "merged"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ELSEWHERE]).arg(folder.path());
        command.args([&plain, &library]).arg(place).stdin(Stdio::piped());
        let running = Running::start(&mut command);
        let process = Process::read(running.0.id()).expect("the process");
        let look = move || match objects::runtime_in(&process) {
            Some(InspectError::InObject { object, .. }) => Some(object),
            _ => None,
        };
        let bounded = || {
            let mut sets = capabilities(None).expect("capabilities");
            // A thread's own.
            for set in [&mut sets.effective, &mut sets.permitted] {
                set.remove(CapabilitySet::SYS_ADMIN | CapabilitySet::CHECKPOINT_RESTORE);
            }
            set_capabilities(None, sets).expect("fewer capabilities");
            let mapped = format!("/proc/{}/map_files", running.0.id());
            let mut mapped = std::fs::read_dir(mapped).expect("mapped files");
            let first = mapped.next().expect("one").expect("one").path();
            assert!(File::open(first).is_err(), "these may not be opened now");
            look()
        };
        let expected = folder.path().join(place).join("lib.so").display().to_string();
        assert_eq!(look(), Some(expected.clone()), "with every capability");
        let found = std::thread::scope(|scope| scope.spawn(bounded).join().expect("a look"));
        assert_eq!(found, Some(expected), "by its path");
    }
}

/// A stripped executable whose constants are a hole of 1 GiB, with what tokio leaves at their end.
fn assets() -> File {
    const CONSTANTS: u64 = 1 << 30;
    const MARK: &[u8] = b"/tokio-1.54.1/src/runtime/builder.rs";
    let names = b"\0.rodata\0.shstrtab\0";
    let (begin, strings) = (4096, 4096 + CONSTANTS);
    let table = strings + 64;
    let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [0x40_1000u64, 64, table] {
        head.extend(word.to_le_bytes());
    }
    head.extend([0; 4]);
    head.extend([64u16, 56, 1, 64, 3, 2].map(u16::to_le_bytes).as_flattened());
    head.extend([1u32, 4].map(u32::to_le_bytes).as_flattened());
    head.extend(
        [0u64, 0x40_0000, 0x40_0000, strings, strings, 4096]
            .map(u64::to_le_bytes)
            .as_flattened(),
    );
    let section = |name: u32, kind: u32, address: u64, offset: u64, size: u64| {
        let mut header = [name, kind].map(u32::to_le_bytes).as_flattened().to_vec();
        header.extend([2, address, offset, size].map(u64::to_le_bytes).as_flattened());
        header.resize(64, 0);
        header
    };
    let sections = [
        vec![0; 64],
        section(1, 1, 0x40_1000, begin, CONSTANTS),
        section(9, 3, 0, strings, names.len() as u64),
    ];
    let mut file = tempfile::tempfile().expect("a file");
    let mut put = |at: u64, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at)).expect("a place");
        file.write_all(bytes).expect("written");
    };
    put(0, &head);
    put(strings - MARK.len() as u64, MARK);
    put(strings, names);
    put(table, &sections.concat());
    file
}

/// One test, as the peak is the whole process'. The others of this file run in processes of their own, or take less.
#[test]
fn a_large_executable_takes_little_memory() {
    const MOST: u64 = 8 << 20;
    let file = assets();
    let mut found = None;
    let took = peak(|| found = Some(inspect_file(&file)));
    assert!(
        matches!(found, Some(Err(InspectError::Stripped { runtime: "tokio" }))),
        "{found:?}"
    );
    assert!(took < MOST, "{took} bytes for 1 GiB of constants");
}
