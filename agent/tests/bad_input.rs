//! What goes wrong: a clear message each, an exit code of its own, and nothing left attached.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{FileExt as _, PermissionsExt as _},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{Agent, Service, attribute, demo, list, number_of, privileged, stock};
use rustix::process::{Pid, Signal, kill_process};

const WHYWAIT: &str = env!("CARGO_BIN_EXE_whywait");
/// Generous: the tests' machines are shared and small.
const SOON: Duration = Duration::from_secs(60);

/// `whywait run` whose lines are read while it runs.
struct Run {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: String,
    /// Its working directory, where `whywait-out` goes.
    directory: tempfile::TempDir,
}

impl Run {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(WHYWAIT);
        command.arg("run").args(args).arg("--plain");
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        command.current_dir(&directory).env("RUST_LOG", "info");
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "WHYWAIT_OTLP", "WHYWAIT_OUT"] {
            command.env_remove(name);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let send = send.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = send.send(line);
                }
            });
        }
        Self {
            child,
            lines,
            said: String::new(),
            directory,
        }
    }

    /// Waits for a line that holds `text`.
    fn until(&mut self, text: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("never said {text:?}:\n{}", self.said));
            self.said.push_str(&line);
            self.said.push('\n');
            if line.contains(text) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its end, by itself within [`SOON`], and everything it said.
    fn end(mut self) -> (ExitStatus, String, tempfile::TempDir) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("does not end:\n{}", self.said);
            }
            thread::sleep(Duration::from_millis(20));
        };
        for line in self.lines.iter() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        (status, self.said, self.directory)
    }
}

/// Runs to the end and checks the exit code and the words of the message.
fn check(run: Run, code: i32, words: &[&str]) -> String {
    let (status, said, _directory) = run.end();
    assert_eq!(status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    said
}

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of a demo program under another name, which no other test's agent is told to watch.
fn copy(program: &str, directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    fs::copy(demo(program), &path).unwrap();
    path
}

fn serve(program: &Path) -> Service {
    Service::start(program, &["--listen", "127.0.0.1:0"], &[])
}

fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Places of a process' probes in its executable, as `whywait doctor` lists them.
fn sites(pid: u32) -> Vec<u64> {
    let output = Command::new(WHYWAIT)
        .args(["doctor", "--pid", &pid.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let sites: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split("at file offset 0x").nth(1)?.split(',').next())
        .map(|offset| u64::from_str_radix(offset, 16).unwrap())
        .collect();
    assert!(!sites.is_empty(), "{text}");
    sites
}

/// How many of the places hold other bytes in memory than in the file: breakpoints.
fn changed(pid: u32, sites: &[u64]) -> usize {
    let file = fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let address = |offset: u64| {
        maps.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !fields[1].contains('x') || Path::new(fields.get(5)?) != exe {
                return None;
            }
            let (begin, end) = fields[0].split_once('-')?;
            let (begin, end, at) = (hex(begin), hex(end), hex(fields[2]));
            (at..at + end - begin).contains(&offset).then(|| begin + offset - at)
        })
    };
    let differs = |offset: &&u64| {
        let (mut there, mut here) = ([0; 8], [0; 8]);
        file.read_exact_at(&mut there, **offset).unwrap();
        memory
            .read_exact_at(&mut here, address(**offset).expect("the place is mapped"))
            .unwrap();
        there != here
    };
    sites.iter().filter(differs).count()
}

/// Ids of the eBPF programs that a process holds.
fn programs(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let mut ids: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn loaded(ids: &[u32]) -> Vec<u32> {
    let all: Vec<u32> = aya::programs::loaded_programs()
        .flatten()
        .map(|info| info.id())
        .collect();
    ids.iter().copied().filter(|id| all.contains(id)).collect()
}

/// The kernel frees programs after a grace period.
fn wait_for_none(what: &str, mut count: impl FnMut() -> usize) {
    let deadline = Instant::now() + SOON;
    while count() > 0 {
        assert!(Instant::now() < deadline, "{what} are left");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn no_such_process() {
    if !privileged() {
        return;
    }
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let run = Run::start(&["--pid", &pid.to_string()]);
    check(run, 4, &[&format!("no process {pid}")]);
    // More than a pid can be.
    check(Run::start(&["--pid", "4294967295"]), 4, &["no process 4294967295"]);
    check(Run::start(&["--pid", "0"]), 4, &["no process 0"]);
}

#[test]
fn neither_go_nor_tokio() {
    if !privileged() {
        return;
    }
    let sleeper = Ended(Command::new("sleep").arg("300").spawn().unwrap());
    let pid = sleeper.0.id();
    let run = Run::start(&["--pid", &pid.to_string()]);
    check(run, 5, &[&format!("process {pid}"), "neither a Go nor a tokio program"]);
    if let Ok(name) = fs::read_to_string("/proc/2/comm")
        && name.trim() == "kthreadd"
    {
        check(Run::start(&["--pid", "2"]), 5, &["kernel thread"]);
    }
}

#[test]
fn no_privilege() {
    if !privileged() {
        return;
    }
    let stock = stock(false);
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("whywait");
    fs::copy(WHYWAIT, &program).unwrap();
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(program);
    command
        .args(["run", "--plain", "--pid", &stock.pid().to_string(), "--out"])
        .arg(out)
        .uid(65534)
        .gid(65534);
    check(Run::of(command), 3, &["needs root", "BPF, PERFMON"]);
}

#[test]
fn no_btf() {
    if !privileged() {
        return;
    }
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c"])
        .arg("mount -t tmpfs none /sys/kernel/btf && exec \"$0\" run --plain --duration 1s");
    command.arg(WHYWAIT);
    check(Run::of(command), 6, &["no BTF", "CONFIG_DEBUG_INFO_BTF"]);
}

#[test]
fn nonsense_on_the_command_line() {
    check(Run::start(&["--pid", "shop"]), 2, &["--pid"]);
    check(Run::start(&["--slow-wait", "soon"]), 2, &["--slow-wait"]);
    check(
        Run::start(&["--otlp", "127.0.0.1:4317"]),
        2,
        &["--otlp 127.0.0.1:4317", "write e.g. http://127.0.0.1:4317"],
    );
    if privileged() {
        check(
            Run::start(&["--without", "nonsense"]),
            2,
            &["--without nonsense", "no such signal", "go.sched"],
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let under = file.path().join("out");
        check(
            Run::start(&["--out", under.to_str().unwrap()]),
            1,
            &["cannot write to", under.to_str().unwrap()],
        );
    }
}

#[test]
fn an_unreachable_endpoint_is_said_once_and_counted() {
    if !privileged() {
        return;
    }
    let stock = stock(false);
    let (pid, url) = (stock.pid().to_string(), format!("http://127.0.0.1:{}", closed_port()));
    let args = ["--pid", &pid, "--otlp", &url, "--metric-interval", "1s"];
    let down = "does not accept metrics";

    // It neither ends nor waits: requests are watched all the while.
    let mut run = Run::start(&args);
    run.until(down);
    let before = run.said.len();
    run.until("exported 0 of");
    run.until("exported 0 of");
    assert!(run.said.len() > before);
    run.signal(Signal::INT);
    let said = check(run, 9, &["0 exported", "everything is detached"]);
    assert_eq!(said.matches(down).count(), 1, "{said}");
    assert!(!said.contains(" 0 dropped"), "{said}");

    // What reaches the files is delivered.
    let mut run = Run::start(&[&args[..], &["--out", "here"]].concat());
    run.until(down);
    run.until("exported ");
    run.signal(Signal::INT);
    let (status, said, directory) = run.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(said.matches(down).count(), 1, "{said}");
    assert!(fs::metadata(directory.path().join("here/metrics.jsonl")).unwrap().len() > 0);
}

/// Watches a program in part: says how to build it, still watches its sockets, and ends with 7.
fn in_part(service: &Service, path: &str, words: &[&str]) {
    let mut run = Run::start(&["--pid", &service.pid().to_string(), "--out", "here"]);
    run.until(" watching ");
    for _ in 0..20 {
        service.get(path);
    }
    run.signal(Signal::INT);
    let (status, said, directory) = run.end();
    assert_eq!(status.code(), Some(7), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    let metrics = fs::read_to_string(directory.path().join("here/metrics.jsonl")).unwrap();
    assert!(metrics.contains("whywait.server.request.duration"), "{said}");
}

/// Neither symbols nor the table from which functions are known then.
#[test]
fn a_rust_program_of_unknown_functions_is_watched_in_part() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let strip = |name: &str| {
        let path = copy(name, directory.path(), &format!("{name}-stripped"));
        let strip = Command::new("strip").args(["-R", ".eh_frame_hdr"]).arg(&path).status();
        assert!(strip.expect("strip of binutils").success());
        path
    };
    let stock = serve(&strip("rust-stock"));
    in_part(
        &stock,
        "/stock/1",
        &["stripped of its symbols", "build it without strip"],
    );
}

/// A Go newer than the table of offsets, and no DWARF: sockets and threads are watched, and what is off is said once.
#[test]
fn an_unknown_go_without_dwarf_is_watched_in_part() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let exe = copy("go-shop", directory.path(), "go-shop-unknown");
    let status = Command::new("strip").arg(&exe).status().expect("strip of binutils");
    assert!(status.success());
    let mut bytes = fs::read(&exe).unwrap();
    for at in 0..bytes.len() - 6 {
        // go1.26.8 → go1.96.8: the build info, and what the runtime itself says.
        if bytes[at..].starts_with(b"go1.2") && bytes[at + 6] == b'.' {
            bytes[at + 4] = b'9';
        }
    }
    fs::write(&exe, bytes).unwrap();
    let first = Service::start(&exe, &["-listen", "127.0.0.1:0"], &[]);
    in_part(
        &first,
        "/item?id=1",
        &[
            "no DWARF in this go1.9",
            "go1.18 to go1.27",
            "Its sockets and threads are watched",
        ],
    );

    // Another process of the same executable is watched as well, and the warning is not said again.
    let second = Service::start(&exe, &["-listen", "127.0.0.1:0"], &[]);
    let mut run = Run::start(&["--exe", exe.to_str().unwrap()]);
    for service in [&first, &second] {
        let watched = format!("(pid {})", service.pid());
        if !run.said.contains(&watched) {
            run.until(&watched);
        }
    }
    run.signal(Signal::INT);
    let (_, said, _) = run.end();
    assert_eq!(said.matches("Its sockets and threads are watched").count(), 1, "{said}");
}

/// Neither symbols nor DWARF: all that a Go service has is seen, and its own counters say the same.
#[test]
fn a_stripped_go_service_is_watched_whole() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let exe = copy("go-shop", directory.path(), "go-shop-stripped");
    let status = Command::new("strip").arg(&exe).status().expect("strip of binutils");
    assert!(status.success());
    let shop = Service::start(&exe, &["-listen", "127.0.0.1:0"], &[]);
    let mut run = Run::start(&[
        "--pid",
        &shop.pid().to_string(),
        "--out",
        "here",
        "--budget",
        "off",
        "--metric-interval",
        "1s",
    ]);
    run.until(" watching ");
    for _ in 0..20 {
        shop.get("/item?id=1");
    }
    shop.get("/gc");
    let oracle = shop.oracle();
    run.signal(Signal::INT);
    let (status, said, directory) = run.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("off:"), "{said}");
    let metrics = fs::read_to_string(directory.path().join("here/metrics.jsonl")).unwrap();
    for name in [
        "go.schedule.duration",
        "go.goroutine.runnable.duration",
        "go.memory.gc.pause.duration",
    ] {
        assert!(metrics.contains(name), "no {name}");
    }
    let spans = fs::read_to_string(directory.path().join("here/traces.jsonl")).unwrap();
    let number = number_of(&oracle["metrics"]["/gc/cycles/total:gc-cycles"]);
    assert!(
        spans.contains("go.gc.cycle.number") && spans.contains(&format!("\"{number}\"")),
        "cycle {number} has no span"
    );
}

#[test]
fn a_replaced_executable_is_read_as_it_runs() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = copy("rust-stock", directory.path(), "stock-replaced");
    let service = serve(&path);
    let other = copy("go-shop", directory.path(), "new");
    fs::rename(other, &path).unwrap();
    let agent = Agent::run(&["--pid", &service.pid().to_string()], 1);
    service.get("/block?ms=25");
    let output = agent.stop();
    assert!(output.status.success(), "{}", output.said);
    assert!(output.said.contains("was replaced or removed"), "{}", output.said);
    let named = |span: &serde_json::Value| {
        attribute(span, "tokio.task.future").is_some_and(|name| name.as_str().unwrap().contains("recompute_forecast"))
    };
    assert!(output.spans("stock-replaced").iter().any(named), "{}", output.said);
}

#[test]
fn a_target_that_is_killed_leaves_its_last_figures() {
    if !privileged() {
        return;
    }
    let service = stock(false);
    // Metrics would leave at the end only: what is there came by the target's end.
    let agent = Agent::run(&["--pid", &service.pid().to_string(), "--metric-interval", "1h"], 1);
    for _ in 0..30 {
        service.get("/stock/1");
    }
    kill_process(Pid::from_child(&service.child), Signal::KILL).unwrap();
    let output = agent.wait();
    assert_eq!(output.status.code(), Some(8), "{}", output.said);
    for word in [
        &format!("(pid {}) ended", service.pid()),
        "whywait ran",
        "everything is detached",
    ] {
        assert!(output.said.contains(word), "no {word:?} in:\n{}", output.said);
    }
    let points = output.points("rust-stock", "tokio.task.poll.duration");
    let polls: i64 = points.iter().map(|point| number_of(&point["count"])).sum();
    assert!(polls >= 60, "{polls} polls of 30 requests");
    let served = output.points("rust-stock", "whywait.server.request.duration");
    assert_eq!(served.iter().map(|point| number_of(&point["count"])).sum::<i64>(), 30);
    // Of several, one's end is not the run's.
    let (one, two) = (stock(false), stock(false));
    let mut run = Run::start(&["--pid", &one.pid().to_string(), "--pid", &two.pid().to_string()]);
    run.until(" watching ");
    run.until(" watching ");
    let pid = one.pid();
    drop(one);
    run.until(&format!("(pid {pid}) ended"));
    two.get("/stock/1");
    run.signal(Signal::INT);
    check(run, 0, &["everything is detached"]);
}

#[test]
fn nothing_is_left_attached() {
    if !privileged() {
        return;
    }
    let service = stock(false);
    let sites = sites(service.pid());
    assert_eq!(changed(service.pid(), &sites), 0);
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut run = Run::start(&["--pid", &service.pid().to_string()]);
        run.until(" watching ");
        assert_eq!(
            changed(service.pid(), &sites),
            sites.len(),
            "every place holds a breakpoint"
        );
        let programs = programs(run.child.id());
        assert_eq!(loaded(&programs), programs);
        assert!(!programs.is_empty());
        run.signal(signal);
        let (status, said, _directory) = run.end();
        if signal == Signal::KILL {
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        } else {
            assert_eq!(status.code(), Some(0), "{said}");
        }
        wait_for_none("breakpoints", || changed(service.pid(), &sites));
        wait_for_none("programs", || loaded(&programs).len());
        service.get("/stock/1");
    }
    let events = fs::read_to_string("/sys/kernel/tracing/uprobe_events").unwrap_or_default();
    assert!(!events.contains("whywait"), "{events}");
}

#[test]
fn processes_are_found_as_they_start_and_let_go_as_they_end() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let own = std::process::id();
    let (by_glob, by_name) = (format!("glob-{own}"), format!("name-{own}"));
    let (one, two) = (
        copy("rust-stock", directory.path(), &format!("{by_glob}-a")),
        copy("rust-stock", directory.path(), &by_name),
    );
    let mut run = Run::start(&[
        "--exe",
        &format!("{by_glob}*"),
        "--name",
        &by_name,
        "--metric-interval",
        "1s",
        "--out",
        "here",
    ]);
    run.until("no Go or tokio process yet");
    for program in [&one, &two, &one] {
        let service = serve(program);
        let pid = service.pid();
        run.until(&format!("(pid {pid}): "));
        for _ in 0..10 {
            service.get("/stock/1");
        }
        drop(service);
        run.until(&format!("(pid {pid}) ended"));
    }
    run.until("every process that was watched has ended");
    run.signal(Signal::INT);
    let (status, said, directory) = run.end();
    assert_eq!(status.code(), Some(0), "{said}");
    // Three processes, each with its own figures.
    let metrics = fs::read_to_string(directory.path().join("here/metrics.jsonl")).unwrap();
    let mut served: Vec<(i64, i64)> = Vec::new();
    for line in metrics.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for resource in list(&line["resourceMetrics"]) {
            let pid = attribute(&resource["resource"], "process.pid").unwrap();
            let metrics = list(&resource["scopeMetrics"]).flat_map(|scope| list(&scope["metrics"]));
            for metric in metrics.filter(|metric| metric["name"] == "whywait.server.request.duration") {
                let points = list(&metric["exponentialHistogram"]["dataPoints"]);
                let count = points.map(|point| number_of(&point["count"])).sum();
                served.retain(|(known, _)| *known != number_of(&pid));
                served.push((number_of(&pid), count));
            }
        }
    }
    let counts: Vec<i64> = served.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [10, 10, 10], "{said}");
}
