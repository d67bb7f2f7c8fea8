//! The daemon outlives its surroundings: output that nobody takes, files that vanish, names that were made to do harm.

mod common;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Agent, Service, attribute, demo, list, number_of, privileged, shop};
use serde_json::Value;

/// The agent with the tests' settings, that writes into `out`.
fn agent(args: &[&str], out: &Path) -> Command {
    let program = std::env::var_os("WHYWAIT_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_whywait").into());
    let mut command = Command::new(program);
    command.args(args).current_dir(out).env("WHYWAIT_BUDGET", "off");
    command
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A child's exit code and what it said to standard error.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    (child.wait().unwrap().code(), said)
}

/// Standard output as a full disk, as a pipe that is closed after its first line, and standard error as a full disk: codes and what
/// was said. Nothing panics.
fn met(args: &[&str], out: &Path) -> [Option<i32>; 3] {
    let on_full = agent(args, out).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    let (full_code, full_said) = end(on_full);
    let mut piped = agent(args, out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    // Its reader goes away with the first line.
    BufReader::new(piped.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    let (closed_code, closed_said) = end(piped);
    for said in [&full_said, &closed_said] {
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
    assert!(
        full_said.contains("cannot write to standard output"),
        "{args:?}: {full_said}"
    );
    let silent = agent(args, out).stdout(Stdio::null()).stderr(full()).status().unwrap();
    [full_code, closed_code, silent.code()]
}

/// How often there was a fault of that kind, as a line of metrics says.
fn faults(line: &Value, cause: &str) -> i64 {
    let metrics = list(&line["resourceMetrics"])
        .flat_map(|of| list(&of["scopeMetrics"]))
        .flat_map(|scope| list(&scope["metrics"]));
    let points = metrics
        .filter(|metric| metric["name"] == "whywait.agent.faults")
        .flat_map(|metric| list(&metric["sum"]["dataPoints"]));
    let of_cause = points.filter(|point| attribute(point, "whywait.cause") == Some(cause.into()));
    of_cause.map(|point| number_of(&point["asInt"])).sum()
}

#[test]
fn output_that_nobody_takes_ends_no_run_and_panics_no_command() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    // What is there to print fails where it cannot; a reader that had enough is no failure.
    assert_eq!(met(&["doctor", "--pid", &pid], out), [Some(1), Some(0), Some(0)]);
    for (name, command) in [("run", &["run"][..]), ("record", &["record", "REC"])] {
        for round in 0..3 {
            let recording = format!("{name}{round}.rec");
            let mut args: Vec<&str> = command
                .iter()
                .map(|arg| if *arg == "REC" { &recording } else { *arg })
                .collect();
            let files = format!("{name}{round}");
            args.extend([
                "--plain",
                "--pid",
                &pid,
                "--duration",
                "2s",
                "--metric-interval",
                "500ms",
                "--out",
                &files,
            ]);
            let mut command = agent(&args, out);
            match round {
                0 => command.stdout(full()).stderr(Stdio::piped()),
                1 => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
                _ => command.stdout(full()).stderr(full()),
            };
            let mut child = command.spawn().unwrap();
            drop(child.stdout.take());
            let (code, said) = end(child);
            assert_eq!(code, Some(0), "{args:?}: {said}");
            assert!(
                round == 2 || said.contains("cannot write to standard output"),
                "{args:?}: {said}"
            );
            let metrics = fs::read_to_string(out.join(&files).join("metrics.jsonl")).unwrap();
            let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
            assert!(faults(&last, "screen") > 0, "{args:?}: {last}");
            if name == "record" {
                let replayed = agent(&["replay", &recording, "--out", "replayed"], out)
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
                assert!(replayed.status.success() && !said.contains("not closed"), "{said}");
            }
        }
    }
    assert_eq!(
        met(&["replay", "record0.rec", "--out", "replayed"], out),
        [Some(1), Some(0), Some(0)]
    );
    // An idle service: what it finds is that nothing came, whoever reads it.
    let selftest = ["selftest", "--pid", &pid, "--timeout", "1s"];
    assert_eq!(met(&selftest, out), [Some(1), Some(1), Some(1)]);
}

/// Ctrl-S, or a pager that nobody scrolls: it is written aside, and Ctrl-C is heard.
#[test]
fn a_terminal_that_stands_still_holds_nothing_up() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    let (mut reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let (log, full_log) = (writer.try_clone().unwrap(), writer.try_clone().unwrap());
    let args = [
        "run",
        "--plain",
        "--pid",
        &pid,
        "--duration",
        "4s",
        "--metric-interval",
        "200ms",
        "--out",
        "out",
    ];
    let mut child = agent(&args, folder.path())
        .env("RUST_LOG", "debug")
        .stdout(writer)
        .stderr(log)
        .spawn()
        .unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0));
    let metrics = fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let points = metrics
        .lines()
        .filter(|line| line.contains("whywait.events.received"))
        .count();
    assert!(points >= 2, "metrics left {points} times in 4 s");
    // Nor does the word on why a command ends.
    let named = ["run", "--plain", "--pid", "4194303"];
    let mut refused = agent(&named, folder.path()).stderr(full_log).spawn().unwrap();
    wait_for(|| refused.try_wait().unwrap().is_some());
    assert_eq!(refused.wait().unwrap().code(), Some(4));
    let mut first = [0; 1];
    reader.read_exact(&mut first).unwrap();
}

/// Writes until nothing more goes in.
fn fill(writer: &std::io::PipeWriter) {
    use std::io::Write as _;
    rustix::io::ioctl_fionbio(writer, true).unwrap();
    while (&*writer).write(&[b'x'; 4096]).is_ok() {}
    while (&*writer).write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(writer, false).unwrap();
}

/// The kernel's word to who ran in a terminal that is gone; under nohup(1) it is none.
#[test]
fn a_terminal_that_goes_away_ends_the_run_in_order() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    for (ignored, name) in [(false, "hup.rec"), (true, "nohup.rec")] {
        let args = [
            "record",
            name,
            "--plain",
            "--pid",
            &pid,
            "--out",
            name.trim_end_matches(".rec"),
        ];
        // Whoever started the tests may ignore it, too.
        let through: &[&str] = match ignored {
            true => &["nohup"],
            false => &["env", "--default-signal=HUP"],
        };
        let mut child = Command::new(through[0])
            .args(&through[1..])
            .arg(agent(&args, folder.path()).get_program())
            .args(args)
            .current_dir(folder.path())
            .env("WHYWAIT_BUDGET", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(" watching ")), "it watches");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        if ignored {
            thread::sleep(Duration::from_secs(2));
            assert!(child.try_wait().unwrap().is_none(), "it goes on");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
        assert!(
            said.contains("everything is detached") && said.contains("recorded: "),
            "{said}"
        );
    }
}

#[test]
fn files_that_are_removed_are_begun_again() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    let agent = Agent::run(&["--pid", &pid, "--metric-interval", "200ms"], 1);
    let file = agent.out.path().join("metrics.jsonl");
    let written = |file: &Path| fs::metadata(file).is_ok_and(|meta| meta.len() > 0);
    wait_for(|| written(&file));
    fs::remove_file(&file).unwrap();
    wait_for(|| written(&file));
    fs::remove_dir_all(agent.out.path()).unwrap();
    wait_for(|| written(&file));
    let output = agent.stop();
    assert!(output.status.success(), "{}", output.said);
    assert!(output.said.contains(", 0 dropped"), "{}", output.said);
    assert!(!output.points("go-shop", "go.goroutine.count").is_empty());
}

#[track_caller]
fn wait_for(mut what: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not come");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A copy of the shop under a name that a terminal would act on.
fn evil(folder: &Path) -> PathBuf {
    let path = folder.join("shop\u{1b}]0;owned\u{7}\nforged");
    fs::copy(demo("go-shop"), &path).unwrap();
    path
}

#[test]
fn names_do_not_write_to_the_terminal_and_are_whole_in_otlp() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shop = Service::start(&evil(folder.path()), &["-listen", "127.0.0.1:0"], &[]);
    let pid = shop.pid().to_string();
    let watched = Agent::run(&["--pid", &pid, "--metric-interval", "500ms"], 1);
    thread::sleep(Duration::from_millis(1200));
    let output = watched.stop();
    let doctor = agent(&["doctor", "--pid", &pid], folder.path()).output().unwrap();
    let doctor = String::from_utf8_lossy(&[doctor.stdout, doctor.stderr].concat()).into_owned();
    let escaped = "shop\\u{1b}]0;owned\\u{7}\\nforged";
    for said in [&output.said, &doctor] {
        let active = said.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(active, None, "{said:?}");
        assert!(said.contains(escaped), "{said}");
        assert!(!said.lines().any(|line| line.starts_with("forged")), "{said}");
    }
    let name = "shop\u{1b}]0;owned\u{7}\nforged";
    let resource = &output.metrics[0]["resourceMetrics"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), Some(name.into()), "{resource}");
}

#[test]
fn a_recording_is_made_into_a_new_file_only() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opening a pipe without a reader would wait for one.
    let output = agent(&["record", "pipe", "--duration", "1s"], folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the recording pipe: File exists"), "{said}");
    fs::create_dir(folder.path().join("out")).unwrap();
    let metrics = folder.path().join("out/metrics.jsonl");
    assert!(Command::new("mkfifo").arg(&metrics).status().unwrap().success());
    let output = agent(&["run", "--out", "out", "--duration", "1s"], folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write to out/metrics.jsonl"), "{said}");
}
