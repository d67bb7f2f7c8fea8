//! `whywait doctor` on real processes: what it says of each, and the code that a run on it would end with.

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{demo, privileged, shop, stock};

const WHYWAIT: &str = env!("CARGO_BIN_EXE_whywait");

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The code that it ends with, and what it says on both streams.
#[track_caller]
fn check(args: &[&str], code: i32, words: &[&str], not: &[&str]) {
    check_of(
        &mut Command::new(WHYWAIT),
        &[&["doctor"], args].concat(),
        code,
        words,
        not,
    );
}

/// The same of any command.
#[track_caller]
fn check_of(command: &mut Command, args: &[&str], code: i32, words: &[&str], not: &[&str]) {
    let output = command.args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{args:?}:\n{said}");
    for word in words {
        assert!(said.contains(word), "{args:?}: no {word:?} in:\n{said}");
    }
    for word in not {
        assert!(!said.contains(word), "{args:?}: {word:?} in:\n{said}");
    }
}

/// Without symbols and without the table from which functions are known then.
fn stripped(directory: &Path) -> PathBuf {
    let path = directory.join("rust-stock-stripped");
    std::fs::copy(demo("rust-stock"), &path).unwrap();
    let strip = Command::new("strip").args(["-R", ".eh_frame_hdr"]).arg(&path).status();
    let status = strip.expect("strip of binutils");
    assert!(status.success());
    path
}

#[test]
fn what_is_there_is_said_and_what_a_run_would_end_with() {
    if !privileged() {
        return;
    }
    let (shop, stock) = (shop(None, &[]), stock(false));
    let (go, tokio) = (shop.pid().to_string(), stock.pid().to_string());
    let sleep = Ended(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap());
    let sleep = (sleep.0.id().to_string(), sleep);
    let directory = tempfile::tempdir().unwrap();
    let exe = stripped(directory.path());
    let blind = common::Service::start(&exe, &["--listen", "127.0.0.1:0"], &[]);
    let blind = (blind.pid().to_string(), blind);
    // By a name that is nobody else's: whatever else runs here is no matter.
    let glob = exe.to_str().unwrap();

    check(
        &["--pid", &go],
        0,
        &[
            ": go1.",
            "go.sched           full",
            "go_execute",
            "1 processes can be watched",
        ],
        &["off: ", "in part: "],
    );
    check(
        &["--pid", &tokio],
        0,
        &[
            ": tokio 1.",
            "tokio.wake         full",
            "tokio_poll_begin",
            "1 processes can be watched",
        ],
        &["tokio.poll         off"],
    );
    let no_strip = "stripped of its symbols";
    check(&["--pid", &blind.0], 7, &[no_strip, "1 processes can be watched"], &[]);
    check(&["--exe", glob], 7, &[no_strip], &[]);
    let neither = "neither Go nor tokio";
    check(&["--pid", &sleep.0], 5, &[neither, "0 processes can be watched"], &[]);
    // Of several, the one that a run ends with at once.
    check(&["--pid", &blind.0, "--pid", &sleep.0], 5, &[neither, no_strip], &[]);
    check(&["--pid", &sleep.0, "--pid", &go], 5, &[neither, ": go1."], &[]);
    check(&["--pid", &go, "--pid", &blind.0], 7, &[no_strip, ": go1."], &[]);
    check(&["--pid", "4194305"], 4, &["no process 4194305"], &[]);
    // By name: others of that name are no failure.
    check(
        &["--exe", "sleep-that-nobody-has"],
        0,
        &["0 processes can be watched"],
        &[],
    );
}

/// Both as a user sees them: the codes are the same.
#[test]
fn a_run_ends_with_the_same_code() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let exe = stripped(directory.path());
    let blind = common::Service::start(&exe, &["--listen", "127.0.0.1:0"], &[]);
    let stock = stock(false);
    let run = |args: &[&str]| {
        let output = Command::new(WHYWAIT)
            .args(["run", "--plain", "--duration", "2s", "--out"])
            .arg(directory.path().join("out"))
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let (blind, stock) = (blind.pid().to_string(), stock.pid().to_string());
    for (args, code) in [
        (&["--pid", &stock][..], 0),
        // What the user left out is no failure.
        (&["--pid", &stock, "--without", "tokio.poll,thread.run_queue"], 0),
        (&["--pid", &blind], 7),
        (&["--pid", &stock, "--pid", &blind], 7),
    ] {
        let (found, said) = run(args);
        assert_eq!(found, Some(code), "{args:?}:\n{said}");
    }
}

/// A command on a kernel that has private stacks, and nothing to keep programs from being preempted: its types name no such function.
fn unguarded(types: &Path) -> Command {
    const GUARD: &[u8] = b"\0bpf_preempt_disable\0";
    let mut bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, GUARD).collect();
    for at in places {
        bytes[at + 1] = b'x';
    }
    std::fs::write(types, bytes).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c"])
        .arg("mount --bind \"$1\" /sys/kernel/btf/vmlinux && shift && exec \"$0\" \"$@\"")
        .arg(WHYWAIT)
        .arg(types);
    command
}

/// What needs no probe is seen all the same.
#[test]
fn without_a_guard_it_is_said_that_there_are_no_probes() {
    if !privileged() {
        return;
    }
    let (_, preemption) = agent::kernel::read().unwrap();
    if !(preemption.private_stacks && preemption.jit) {
        return eprintln!("SKIPPED: this kernel's uprobes need no guard");
    }
    let reason = "lacks bpf_preempt_disable, which prevents this: a probe could crash the host";
    let directory = tempfile::tempdir().unwrap();
    let types = directory.path().join("types");
    let (shop, stock) = (shop(None, &[]), stock(false));
    for (service, off, full) in [
        (
            &shop,
            &["go.gc", "go.stw", "go.assist", "go.sched", "go.handoff", "go.latency"][..],
            &["go.runtime", "go.goroutines", "go.wait"][..],
        ),
        (&stock, &["tokio.poll", "tokio.wake"], &[]),
    ] {
        let pid = service.pid().to_string();
        let output = unguarded(&types).args(["doctor", "--pid", &pid]).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(7), "{said}");
        // (What is said of it, how it begins); each on a line of its own.
        let lines = |of: &str| {
            said.lines()
                .filter(|line| line.split_whitespace().next() == Some(of))
                .collect::<Vec<_>>()
        };
        let is_off = |line: &str| line.contains(" off: on this kernel two runs of a program") && line.ends_with(reason);
        for of in [&["uprobes"], off].concat() {
            assert!(matches!(lines(of)[..], [line] if is_off(line)), "{of}: {said}");
        }
        for of in full {
            assert!(
                matches!(lines(of)[..], [line] if line.ends_with(" full")),
                "{of}: {said}"
            );
        }
        assert_eq!(
            said.lines().filter(|line| is_off(line)).count(),
            1 + off.len(),
            "{said}"
        );
        assert!(
            matches!(lines("trap")[..], [line] if line.contains("cannot be measured")),
            "{said}"
        );
        for hook in [
            "net.connect        tp_btf/",
            "net.request        ",
            "1 processes can be watched",
        ] {
            assert!(said.contains(hook), "no {hook:?} in {said}");
        }
        // No probe is listed.
        assert!(!said.contains("at file offset"), "{said}");
    }
    // A run says it too, and ends with the same code.
    let (pid, out) = (shop.pid().to_string(), directory.path().join("out"));
    let args = ["run", "--plain", "--duration", "2s", "--pid", &pid, "--out"];
    let args = [&args[..], &[out.to_str().unwrap()]].concat();
    let words = ["no uprobe is used: ", "(pid", ": 0 probes", "go.sched: off: ", reason];
    check_of(&mut unguarded(&types), &args, 7, &words, &["go.runtime: off"]);
    // Left out by the user, nothing is missing.
    let without = ["--without", "go.gc,go.stw,go.assist,go.sched,go.handoff,go.latency"];
    check_of(
        &mut unguarded(&types),
        &[&args[..], &without].concat(),
        0,
        &["(pid", ": 0 probes"],
        &["off: this kernel"],
    );
}
