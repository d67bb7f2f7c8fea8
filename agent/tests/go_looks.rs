//! What looks at a Go process tell, without a probe: goroutines by their names, after a burst of others too; and runtimes that are
//! not in the executable, or are others than they seem.

#[path = "common/go_build.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_build;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    process::{Child, Command, Stdio},
};

use agent::{
    discover::{Process, objects},
    golang::GoRuntime,
    inspect::{InspectError, inspect_file, runtime_of_object},
    memory::Memory,
};
use go_build::{build, go_image};

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

/// Bytes of this process' memory at their most since `begin`, by the kernel's mark (proc_pid_clear_refs(5)).
fn peak(begin: impl FnOnce()) -> u64 {
    let kib = |key: &str| {
        let mut status = String::new();
        File::open("/proc/self/status")
            .and_then(|mut file| file.read_to_string(&mut status))
            .expect("status");
        let figure = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .expect("a figure");
        figure.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    std::fs::write("/proc/self/clear_refs", "5").expect("a reset");
    let before = kib("VmRSS:");
    begin();
    kib("VmHWM:").saturating_sub(before) << 10
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
