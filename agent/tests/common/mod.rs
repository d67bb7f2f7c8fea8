//! What the tests with real eBPF on real services share: the demo's programs, the agent as a child, its JSON lines.
#![expect(dead_code, reason = "each test file uses its part")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

mod json;
pub mod maps;
pub mod quota;

pub use json::*;

/// A program of the demo, built by `cargo xtask test` into target/demo.
pub fn demo(name: &str) -> PathBuf {
    let folder = std::env::var_os("WHYWAIT_DEMO_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/demo"),
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, which builds it",
        path.display()
    );
    path.canonicalize().unwrap()
}

/// Whether tests with eBPF can run; says so when they cannot, and fails in CI.
pub fn privileged() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
    eprintln!("SKIPPED: needs root");
    false
}

/// Whether this is an emulated machine, which makes less and takes longer for it.
pub fn is_slow() -> bool {
    std::env::var_os("WHYWAIT_SLOW_MACHINE").is_some()
}

/// The kernel's own account of a process' threads (/proc/PID/task/*/schedstat), all together: time on a core and on run queues, ns, and how
/// often they got a core. A thread that ends meanwhile is left out.
pub fn schedstat(pid: u32) -> [i64; 3] {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_each = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    of_each.fold([0; 3], |mut sum, line| {
        let numbers = line.split_whitespace().map(|number| number.parse::<i64>().unwrap());
        sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        sum
    })
}

/// Of that, how long they waited on run queues, s, and how often they got a core.
pub fn run_queue(pid: u32) -> (f64, i64) {
    let [_, waited, cores] = schedstat(pid);
    (waited as f64 / 1e9, cores)
}

/// A child that is ended by its own pid when it goes out of scope.
pub struct Service {
    pub child: Child,
    pub address: String,
}

impl Service {
    /// Starts a program that prints `listening on ADDR`.
    pub fn start(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        Self::of(command.args(args).envs(env.iter().copied()))
    }

    /// The same of a command.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    let _ = send.send(address.trim().to_owned());
                }
            }
        });
        let address = receive
            .recv_timeout(Duration::from_secs(20))
            .expect("the service says where it listens");
        Self { child, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The answer's body.
    pub fn get(&self, path: &str) -> String {
        String::from_utf8(self.get_bytes(path)).unwrap()
    }

    /// The answer's body, whatever it holds; the connection is closed by the server at the end.
    pub fn get_bytes(&self, path: &str) -> Vec<u8> {
        get_bytes(&self.address, path)
    }

    /// The service's own account of itself.
    pub fn oracle(&self) -> Value {
        serde_json::from_str(&self.get("/debug/whywait")).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer of any service.
pub fn get(address: &str, path: &str) -> String {
    String::from_utf8(get_bytes(address, path)).unwrap()
}

fn get_bytes(address: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an HTTP answer");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    assert!(head.contains(" 200 "), "{path}: {head}");
    answer.split_off(end + 4)
}

/// go-shop, with rust-stock behind it.
pub fn shop(stock: Option<&Service>, env: &[(&str, &str)]) -> Service {
    let stock = stock.map(|stock| stock.url(""));
    let mut args = vec!["-listen", "127.0.0.1:0"];
    if let Some(stock) = &stock {
        args.extend(["-stock", stock]);
    }
    Service::start(&demo("go-shop"), &args, env)
}

/// rust-stock; `unstable` is the build with tokio's own metrics.
pub fn stock(unstable: bool) -> Service {
    let name = if unstable { "rust-stock-unstable" } else { "rust-stock" };
    Service::start(&demo(name), &["--listen", "127.0.0.1:0"], &[])
}

/// Runs the load generator to its end and gives its JSON.
pub fn load(urls: &[String], rate: u32, seconds: u32, connections: u32) -> Value {
    Load::start(urls, rate, seconds, connections).end()
}

/// A load generator that runs.
pub struct Load {
    child: Child,
    directory: tempfile::TempDir,
}

impl Load {
    /// For so many seconds, or until stopped.
    pub fn start(urls: &[String], rate: u32, seconds: u32, connections: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(demo("load"));
        for url in urls {
            command.args(["--url", url]);
        }
        let duration = format!("{seconds}s");
        command.args(["--rate", &rate.to_string(), "--duration", &duration]);
        command.args(["--connections", &connections.to_string()]);
        command.arg("--json").arg(directory.path().join("load.json"));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        Self { child, directory }
    }

    /// Ends it, with its JSON.
    pub fn stop(self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.end()
    }

    fn end(mut self) -> Value {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "load: {status}");
        serde_json::from_slice(&std::fs::read(self.directory.path().join("load.json")).unwrap()).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What tests change for their counts, as users have it: for [`Agent::run_with`].
pub const DEFAULTS: [(&str, &str); 2] = [("WHYWAIT_BUDGET", "1%"), ("WHYWAIT_LIMIT_CPU", "5%")];

/// The agent as users run it.
pub struct Agent {
    child: Child,
    pub out: tempfile::TempDir,
    log: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Agent {
    /// `whywait run ARGS --out TMP`, once it says that it watches `targets` processes.
    pub fn run(args: &[&str], targets: usize) -> Self {
        Self::spawn(args, &[]).watching(targets)
    }

    /// As [`run`](Self::run), with other settings than the tests'.
    pub fn run_with(args: &[&str], targets: usize, env: &[(&str, &str)]) -> Self {
        Self::spawn(args, env).watching(targets)
    }

    /// `whywait record FILE ARGS --out TMP`, once it says that it watches `targets` processes.
    pub fn record(file: &Path, args: &[&str], targets: usize) -> Self {
        Self::start(&["record", file.to_str().unwrap()], args, &[]).watching(targets)
    }

    /// `whywait replay FILE --out TMP`.
    pub fn replay(file: &Path) -> Output {
        Self::start(&["replay", file.to_str().unwrap()], &[], &[]).wait()
    }

    /// Waits until it says that it watches so many more.
    pub fn watching(self, targets: usize) -> Self {
        self.says(" watching ", targets)
    }

    /// Waits for so many more lines with `words` in them.
    pub fn says(mut self, words: &str, lines: usize) -> Self {
        let deadline = Instant::now() + Duration::from_secs(if is_slow() { 300 } else { 60 });
        let mut found = 0;
        while found < lines {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .log
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("the agent does not say {words:?}: {:?}", self.said));
            found += usize::from(line.contains(words));
            self.said.push(line);
        }
        self
    }

    /// Starts `whywait run ARGS --out TMP` and does not wait.
    pub fn spawn(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start(&["run", "--plain"], args, env)
    }

    fn start(command_line: &[&str], args: &[&str], env: &[(&str, &str)]) -> Self {
        let out = tempfile::tempdir().unwrap();
        // In a VM it lies elsewhere than where it was built.
        let program = std::env::var_os("WHYWAIT_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_whywait").into());
        let mut command = Command::new(program);
        command.args(command_line).args(args).arg("--out").arg(out.path());
        // Everything is seen all the time, unless the test says otherwise: it compares counts.
        command
            .env("RUST_LOG", "info")
            .env("WHYWAIT_BUDGET", "off")
            .env("WHYWAIT_LIMIT_CPU", "off")
            // One file, whatever there is to write: it is read whole.
            .env("WHYWAIT_OUT_ROTATE", "64GiB")
            .envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, log) = mpsc::channel();
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
            out,
            log,
            said: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last points of a metric of a process that were written until now.
    pub fn points(&self, service: &str, metric: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.out.path().join("metrics.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        points(&lines.collect::<Vec<_>>(), service, metric)
    }

    /// Ctrl-C; waits for the closing summary. What it wrote and said.
    pub fn stop(self) -> Output {
        self.interrupt();
        self.wait()
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Output {
        let status = self.child.wait().unwrap();
        self.said.extend(self.log.iter());
        let read = |name: &str| {
            let text = std::fs::read_to_string(self.out.path().join(name)).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        Output {
            status,
            said: self.said.join("\n"),
            traces: read("traces.jsonl"),
            metrics: read("metrics.jsonl"),
            logs: read("logs.jsonl"),
        }
    }
}

impl Drop for Agent {
    /// Of a test that failed: nothing is left behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run left.
pub struct Output {
    pub status: ExitStatus,
    /// Standard output and error.
    pub said: String,
    /// OTLP requests as JSON.
    pub traces: Vec<Value>,
    pub metrics: Vec<Value>,
    pub logs: Vec<Value>,
}

impl Output {
    /// What the agent itself says was lost by this cause.
    pub fn dropped(&self, cause: &str) -> i64 {
        of_cause(&self.points("whywait", "whywait.events.dropped"), cause)
    }

    /// Every span of a process, by its service.name.
    pub fn spans(&self, service: &str) -> Vec<Value> {
        let of_service = self
            .traces
            .iter()
            .flat_map(|line| list(&line["resourceSpans"]))
            .filter(|resource| attribute(&resource["resource"], "service.name") == Some(Value::from(service)));
        of_service
            .flat_map(|resource| list(&resource["scopeSpans"]))
            .flat_map(|scope| list(&scope["spans"]))
            .cloned()
            .collect()
    }

    /// The last points of a metric of a process.
    pub fn points(&self, service: &str, metric: &str) -> Vec<Value> {
        points(&self.metrics, service, metric)
    }
}
