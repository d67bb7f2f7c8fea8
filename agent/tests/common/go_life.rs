//! A Go program that counts what it does, of any version and build, watched whole: each signal against the program's own account,
//! the runtime's, and its execution trace.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    common::{Agent, Output, attribute, clocks, demo, number_of, run_queue},
    go_signals,
};

/// What came of a build's signals.
#[derive(Debug, Default)]
pub struct Life {
    /// Signals that say themselves that they are off, or there in part, as they stand in the table; and why.
    pub less: Vec<(String, String)>,
    /// What is not as the oracles have it, by signal.
    pub wrong: Vec<(&'static str, String)>,
    /// The largest difference between our sum of a state and the trace's, as a part of the goroutines' whole time.
    pub off_by: f64,
    /// Nothing but such sums is wrong.
    pub only_times: bool,
}

impl Life {
    /// As it stands in the table.
    pub fn cell(&self) -> String {
        let mut all: Vec<String> = self.wrong.iter().map(|(name, _)| format!("**wrong** {name}")).collect();
        all.dedup();
        all.extend(self.less.iter().map(|(what, _)| what.clone()));
        if all.is_empty() {
            "full".to_owned()
        } else {
            all.join(", ")
        }
    }
}

/// Everything that the program, the trace and the agent said.
pub struct Said {
    /// The program's account (fixtures/go_life.go.txt).
    pub told: Value,
    /// What tracestat read in the trace.
    pub trace: Value,
    /// How long its threads waited on run queues by the kernel's account, s, and how often they got a core.
    pub run_queue: (f64, i64),
    pub output: Output,
    pub spans: Vec<Value>,
    service: String,
    /// 26 of go1.26.8.
    pub minor: u32,
}

impl Said {
    pub fn told(&self, key: &str) -> i64 {
        number_of(&self.told[key])
    }

    pub fn points(&self, metric: &str) -> Vec<Value> {
        self.output.points(&self.service, metric)
    }

    /// Points of a metric that have these attributes.
    pub fn points_of(&self, metric: &str, wanted: &[(&str, &str)]) -> Vec<Value> {
        let mut points = self.points(metric);
        points.retain(|point| wanted.iter().all(|(key, value)| text(point, key) == *value));
        points
    }

    /// Sum of the numbers, or of the counts of histograms.
    pub fn sum(&self, metric: &str, wanted: &[(&str, &str)]) -> i64 {
        let number = |point: &Value| number_of(point.get("asInt").unwrap_or(&point["count"]));
        self.points_of(metric, wanted).iter().map(number).sum()
    }

    pub fn spans_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.spans.iter().filter(move |span| span["name"] == name)
    }
}

/// An attribute's text; empty when there is none.
pub fn text(of: &Value, key: &str) -> String {
    let value = attribute(of, key).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Watches the program at `path`; again where nothing but the time of states differs, three times at most. On a busy machine a thread
/// may lose its core for long between the trace's event and the probe; what the agent does wrong is wrong each time. So it is where the
/// trace is cut short, as go1.18's is at times, which has no frequency then.
pub fn watch(path: &Path, minor: u32) -> Life {
    for _ in 0..2 {
        match watch_once(path, minor) {
            Ok(life) if !life.only_times => return life,
            other => println!("once more: {other:?}"),
        }
    }
    watch_once(path, minor).expect("a trace")
}

/// Runs the program beside an agent of its own; an error is why its trace cannot be read.
fn watch_once(path: &Path, minor: u32) -> Result<Life, String> {
    let trace = path.with_extension("trace");
    let mut program = Program::start(path, &trace);
    let pid = program.child.id().to_string();
    let agent = Agent::run(&["--pid", &pid, "--metric-interval", "1s", "--max-spans", "100000"], 1);
    let before = run_queue(program.child.id());
    program.say("go\n");
    let told = program.hear();
    let service = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name")
        .to_owned();
    // One look at the goroutines that stay, which a busy machine may delay.
    program.stand_still();
    until_a_look(&agent, &service);
    let after = run_queue(program.child.id());
    let output = agent.stop();
    let read = Command::new(demo("tracestat"))
        .arg(&trace)
        .output()
        .expect("tracestat runs");
    if !read.status.success() {
        return Err(String::from_utf8_lossy(&read.stderr).into_owned());
    }
    Ok(go_signals::check(&Said {
        told: serde_json::from_str(&told).expect("the program's account"),
        trace: serde_json::from_slice(&read.stdout).expect("tracestat's JSON"),
        run_queue: (after.0 - before.0, after.1 - before.1),
        spans: output.spans(&service),
        output,
        service,
        minor,
    }))
}

/// Waits for a look at the goroutines that began after now. A look may take a 200th of the time between two: one that is long, as in an
/// emulator, is not repeated for seconds. The program stands still meanwhile, so that nothing goes on that the trace does not have.
fn until_a_look(agent: &Agent, service: &str) {
    let (_, now) = clocks();
    let is_seen = || {
        let seen = agent.points(service, "go.goroutine.alive");
        seen.iter().any(|point| number_of(&point["timeUnixNano"]) > now)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_seen() {
        assert!(Instant::now() < deadline, "no look at the goroutines");
        thread::sleep(Duration::from_millis(500));
    }
}

/// The program; on one P, so that it is settled who waits for whom.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(path: &Path, trace: &Path) -> Self {
        let mut child = Command::new(path)
            .arg(trace)
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut program = Self { child, input, output };
        assert_eq!(program.hear().trim_end(), "ready");
        program
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("it reads");
    }

    fn stand_still(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is there");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        line
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
