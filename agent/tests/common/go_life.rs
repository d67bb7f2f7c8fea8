//! A Go program that counts what it does, of any version and build, watched whole: what the agent counted for what it did.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::common::{Agent, Output, attribute, number_of};

/// As in fixtures/go_life.go.txt.
const ROUNDS: f64 = 2000.0;
const NAPS: f64 = 50.0;
const CALLS: f64 = 200.0;
const CYCLES: f64 = 5.0;

/// What the agent counted for each that the program did; 1 is right.
#[derive(Debug)]
pub struct Life {
    /// One in each of two goroutines a round: to receive, or to send once one was preempted in between.
    pub chan: f64,
    pub sleep: f64,
    pub io_wait: f64,
    pub served: f64,
    pub called: f64,
    pub cycles: f64,
}

impl Life {
    /// All that is not what the program did. A preemption in the wrong moment makes a wait more or less.
    pub fn wrong(&self) -> Vec<String> {
        let exact = [
            ("served", self.served),
            ("called", self.called),
            ("GC cycles", self.cycles),
        ];
        let near = [
            ("chan receive and send", self.chan),
            ("sleep", self.sleep),
            ("IO wait", self.io_wait),
        ];
        let exact = exact.into_iter().filter(|(_, ratio)| *ratio != 1.0);
        let near = near.into_iter().filter(|(_, ratio)| !(0.95..1.05).contains(ratio));
        exact
            .chain(near)
            .map(|(what, ratio)| format!("{what}: {ratio:.4}"))
            .collect()
    }
}

/// Runs the program at `path` beside an agent of its own.
pub fn watch(path: &Path) -> Life {
    let mut program = Program::start(path);
    let agent = Agent::run(
        &["--pid", &program.child.id().to_string(), "--metric-interval", "1s"],
        1,
    );
    program.say("go\n");
    program.hear("done");
    let output = agent.stop();
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    let waits = |reason: &str| counted(&output, name, "go.goroutine.wait.duration", Some(reason));
    Life {
        chan: (waits("chan receive") + waits("chan send")) / (2.0 * ROUNDS),
        sleep: waits("sleep") / NAPS,
        io_wait: waits("IO wait") / (2.0 * CALLS),
        served: counted(&output, name, "whywait.server.request.duration", None) / CALLS,
        called: counted(&output, name, "whywait.client.request.duration", None) / CALLS,
        cycles: output
            .spans(name)
            .iter()
            .filter(|span| span["name"] == "go.gc.cycle")
            .count() as f64
            / CYCLES,
    }
}

/// The count of a histogram's points, of all or of one wait reason.
fn counted(output: &Output, service: &str, metric: &str, reason: Option<&str>) -> f64 {
    let points = output.points(service, metric);
    let of_reason = points.iter().filter(|point| {
        let found = attribute(point, "go.goroutine.wait_reason");
        reason.is_none_or(|reason| found.is_some_and(|found| found == reason))
    });
    of_reason.map(|point| number_of(&point["count"])).sum::<i64>() as f64
}

/// The program; on one P, so that what waits for what is settled.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(path)
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut program = Self { child, input, output };
        program.hear("ready");
        program
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("it reads");
    }

    fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        assert_eq!(line.trim_end(), wanted);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
