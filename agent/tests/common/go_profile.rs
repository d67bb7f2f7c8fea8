//! A Go program that is looked at by `whywait goroutines` and `whywait profile`, and what they write.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use crate::go_build::go;

/// A child that is ended with the test.
pub struct Running {
    pub child: Child,
    output: BufReader<ChildStdout>,
    /// What it printed up to "end".
    pub text: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn start(program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut running = Self {
            child,
            output,
            text: String::new(),
        };
        running.text = running.until("end");
        running
    }

    pub fn until(&mut self, word: &str) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).expect("a line") > 0,
                "it ended: {text}"
            );
            if line.trim_end() == word {
                return text;
            }
            text += &line;
        }
    }

    pub fn whywait(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whywait"));
        let (name, rest) = args.split_first().expect("a command");
        let pid = self.child.id().to_string();
        let output = command.arg(name).args(["--pid", &pid]).args(rest).output();
        output.expect("whywait runs")
    }

    pub fn dump(&self, args: &[&str]) -> String {
        let output = self.whywait(&[&["goroutines"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

/// A function's name without what it is generic in, which runtime/pprof has since go1.27.
fn without_types(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(begin), Some(end)) => format!("{}[...]{}", &name[..begin], &name[end + 1..]),
        _ => name.to_owned(),
    }
}

/// Stacks by their functions, innermost first, and how many goroutines have each: as `go tool pprof -raw` prints a profile.
pub fn raw(path: &Path) -> BTreeMap<Vec<String>, i64> {
    let output = go("local").args(["tool", "pprof", "-raw"]).arg(path).output();
    let output = output.expect("go tool pprof");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (samples, rest) = text.split_once("\nLocations\n").expect("locations");
    let locations = rest.split("\nMappings").next().expect("locations");
    let mut functions: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut last = 0;
    for line in locations.lines() {
        let mut words = line.split_whitespace().peekable();
        if let Some(id) = words.peek().and_then(|word| word.strip_suffix(':')?.parse().ok()) {
            last = id;
            words.next();
            while words
                .next_if(|word| word.starts_with("0x") || word.starts_with("M="))
                .is_some()
            {}
        }
        functions
            .entry(last)
            .or_default()
            .extend(words.next().map(without_types));
    }
    let mut stacks = BTreeMap::new();
    for line in samples.lines() {
        let Some((values, ids)) = line.split_once(": ") else {
            continue;
        };
        let Some(Ok(value)) = values.split_whitespace().next().map(str::parse::<i64>) else {
            continue;
        };
        let ids = ids.split_whitespace().map_while(|id| id.parse::<u64>().ok());
        let stack: Vec<String> = ids.flat_map(|id| functions[&id].clone()).collect();
        *stacks.entry(stack).or_default() += value;
    }
    stacks
}
