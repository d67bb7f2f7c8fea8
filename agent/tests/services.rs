//! Services that nobody here wrote, under load and watched as users would: no crash, no signal missing, figures that are the
//! services' own. By `cargo xtask test --services`, which builds them and writes docs/real-services.md.

mod common;

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Agent, Output, attribute, number_of, privileged};
use serde_json::Value;

/// A service: the module it is built from, its main package, and how it is started.
struct Kind {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    start: fn(&mut Command, &Ports, &Path),
    /// Where it says how many goroutines it has, on its second port, and what stands before the number.
    goroutines: Option<(&'static str, &'static str)>,
}

struct Ports {
    first: u16,
    second: u16,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "greeter",
        module: "google.golang.org/grpc/examples@latest",
        package: "google.golang.org/grpc/examples/helloworld/greeter_server",
        start: |command, ports, _| {
            command.arg(format!("-port={}", ports.first));
        },
        goroutines: None,
    },
    Kind {
        name: "etcd",
        module: "go.etcd.io/etcd/server/v3@latest",
        package: "go.etcd.io/etcd/server/v3",
        start: |command, ports, folder| {
            let client = format!("http://127.0.0.1:{}", ports.first);
            let peer = format!("http://127.0.0.1:{}", ports.second);
            command
                .args(["--log-level", "error", "--unsafe-no-fsync", "--data-dir"])
                .arg(folder.join("data"));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("default={peer}")]);
        },
        goroutines: Some(("/metrics", "\ngo_goroutines ")),
    },
    Kind {
        name: "nats-server",
        module: "github.com/nats-io/nats-server/v2@latest",
        package: "github.com/nats-io/nats-server/v2",
        start: |command, ports, _| {
            command.args(["-a", "127.0.0.1", "-p", &ports.first.to_string()]);
            command.args(["--profile", &ports.second.to_string()]);
        },
        goroutines: Some(("/debug/pprof/goroutine?debug=1", "goroutine profile: total ")),
    },
    Kind {
        name: "caddy",
        module: "github.com/caddyserver/caddy/v2@latest",
        package: "github.com/caddyserver/caddy/v2/cmd/caddy",
        start: |command, ports, folder| {
            let config = format!(
                "{{\n admin 127.0.0.1:{}\n auto_https off\n persist_config off\n}}\nhttp://127.0.0.1:{} {{\n respond hello\n}}\n",
                ports.second, ports.first
            );
            fs::write(folder.join("Caddyfile"), config).unwrap();
            command.args(["run", "--config"]).arg(folder.join("Caddyfile"));
        },
        goroutines: Some(("/metrics", "\ngo_goroutines ")),
    },
];

/// Length of a stretch of load, s, and how many there are with the agent and as many without, in turns.
const SECONDS: u32 = 8;
/// The stretch in which requests are counted: some windows.
const COUNTED_SECONDS: u32 = 24;
const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 16;

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/services")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap()
}

/// Runs a Go command at the lowest priority; what it printed.
fn go(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("nice");
    command
        .args(["-n", "19", "go"])
        .args(args)
        .current_dir(folder)
        .env("CGO_ENABLED", "0");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "go {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The service's program, built in a module of ours: so `replace` lines of its own are no hindrance.
fn built(kind: &Kind) -> (PathBuf, String) {
    let folder = folder(kind.name);
    let program = folder.join(kind.name);
    if !program.exists() {
        if !folder.join("go.mod").exists() {
            go(&folder, &["mod", "init", "example.org/services"]);
        }
        go(&folder, &["get", kind.module]);
        go(&folder, &["build", "-mod=mod", "-o", kind.name, kind.package]);
    }
    let module = kind.module.split('@').next().unwrap_or_default();
    let version = go(&folder, &["list", "-mod=mod", "-m", "-f", "{{.Version}}", module]);
    (program, version.trim().to_owned())
}

fn load_built() -> PathBuf {
    let folder = folder("load");
    fs::write(folder.join("main.go"), include_str!("services/load.go")).unwrap();
    fs::write(folder.join("go.mod"), "module example.org/load\ngo 1.25\n").unwrap();
    go(&folder, &["build", "-o", "load", "."]);
    folder.join("load")
}

/// A running service, ended by its own pid.
struct Running {
    child: Child,
    ports: Ports,
    trace: PathBuf,
}

impl Running {
    fn start(kind: &Kind, program: &Path) -> Self {
        let scratch = folder(kind.name).join("run");
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch).unwrap();
        // Free a moment ago; nobody else takes ports of this range in between.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ports = Ports {
            first: free(),
            second: free(),
        };
        let trace = scratch.join("stderr");
        let mut command = Command::new(program);
        (kind.start)(&mut command, &ports, &scratch);
        command
            .env("GODEBUG", "gctrace=1")
            .env("HOME", &scratch)
            .env("XDG_DATA_HOME", &scratch);
        command.stdout(Stdio::null()).stderr(File::create(&trace).unwrap());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let running = Self { child, ports, trace };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", running.ports.first)).is_err() {
            let said = fs::read_to_string(&running.trace).unwrap();
            assert!(Instant::now() < deadline, "{} does not listen: {said}", kind.name);
            thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// The runtime's own count of GC cycles: what gctrace printed last.
    fn cycles(&self) -> i64 {
        let text = fs::read_to_string(&self.trace).unwrap();
        let last = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("gc ")?.split(' ').next()?.parse().ok());
        last.unwrap_or(0)
    }

    fn goroutines(&self, kind: &Kind) -> Option<i64> {
        let (path, before) = kind.goroutines?;
        let port = if kind.name == "etcd" {
            self.ports.first
        } else {
            self.ports.second
        };
        let service = common::get(&format!("127.0.0.1:{port}"), path);
        let rest = &service[service.find(before)? + before.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests answered a second.
fn load(program: &Path, kind: &Kind, running: &Running, seconds: u32) -> f64 {
    let address = format!("127.0.0.1:{}", running.ports.first);
    let args = [kind.name, &address, &seconds.to_string(), &CONNECTIONS.to_string()];
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", kind.name);
    let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts["failed"], 0, "{}: {said}", kind.name);
    let requests = counts["requests"].as_i64().unwrap();
    requests as f64 / counts["seconds"].as_f64().unwrap()
}

fn sum(points: &[Value], field: &str) -> i64 {
    points.iter().map(|point| number_of(&point[field])).sum()
}

/// Signals of the service, and how much of each there is.
fn states(output: &Output, service: &str) -> Vec<(String, String)> {
    let text = |point: &Value, key: &str| Some(attribute(point, key)?.as_str()?.to_owned());
    let points = output.points(service, "whywait.signal.state");
    let states = points.iter().filter_map(|point| {
        let keys = ["whywait.signal", "whywait.coverage"];
        Some((text(point, keys[0])?, text(point, keys[1])?))
    });
    states.collect()
}

/// What a watched stretch gave, beside what the service and the load generator say.
struct Figures {
    /// Counted, and those answered in the time that windows stand for.
    requests: (i64, f64),
    cycles: (i64, i64),
    goroutines: (i64, Option<i64>),
    lost: i64,
    states: Vec<(String, String)>,
    said: String,
}

fn watched(program: &Path, kind: &Kind, running: &Running, seconds: u32, options: &[&str]) -> (f64, Figures) {
    let pid = running.child.id().to_string();
    let budget = [("WHYWAIT_BUDGET", "1%"), ("WHYWAIT_LIMIT_CPU", "5%")];
    let args = [&["--pid", &pid, "--metric-interval", "1s"], options].concat();
    let agent = Agent::run_with(&args, 1, &budget);
    let rate = load(program, kind, running, seconds);
    // The last interval's end.
    thread::sleep(Duration::from_millis(1500));
    let own = running.goroutines(kind);
    let output = agent.stop();
    let cycles = running.cycles();
    let service = kind.name;
    let served = output.points(service, "whywait.server.request.duration");
    let windows = output.points(service, "whywait.window.time");
    let of_hooks = |point: &&Value| attribute(point, "whywait.plane") == Some("sockets".into());
    let windows = windows.iter().filter(of_hooks).map(|point| number_of(&point["asInt"]));
    let windows = windows.sum::<i64>() as f64 / 1e9;
    let lost = output.points("whywait", "whywait.events.dropped");
    let figures = Figures {
        requests: (sum(&served, "count"), rate * windows),
        cycles: (sum(&output.points(service, "go.memory.gc.cycles"), "asInt"), cycles),
        goroutines: (sum(&output.points(service, "go.goroutine.count"), "asInt"), own),
        lost: sum(&lost, "asInt"),
        states: states(&output, service),
        said: output.said,
    };
    (rate, figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn observe(program: &Path, load_program: &Path, version: &str, kind: &Kind) -> String {
    let mut running = Running::start(kind, program);
    load(load_program, kind, &running, SECONDS);
    let (mut without, mut with, mut last) = (Vec::new(), Vec::new(), None);
    for _ in 0..ROUNDS {
        without.push(load(load_program, kind, &running, SECONDS));
        let (rate, figures) = watched(load_program, kind, &running, SECONDS, &[]);
        with.push(rate);
        last = Some(figures);
    }
    // Their cores are busy: for the tail's sake so short a stretch holds hardly a window.
    let options = ["--budget-p99", "off"];
    let of_counted = watched(load_program, kind, &running, COUNTED_SECONDS, &options).1;
    let (counted, answered) = of_counted.requests;
    let counted = counted as f64 / answered;
    assert!(
        (0.5..1.5).contains(&counted),
        "{}: {counted} of the requests",
        kind.name
    );
    assert!(running.is_alive(), "{} ended", kind.name);
    let of = last.unwrap();
    assert!(!of.states.is_empty(), "{}: {}", kind.name, of.said);
    // Under a budget, what costs by the event is seen in windows.
    let (full, others): (Vec<_>, Vec<_>) = of.states.iter().partition(|(_, state)| state == "full");
    let missing: Vec<_> = others.iter().filter(|(_, state)| state != "windows").collect();
    assert!(missing.is_empty(), "{}: {missing:?}\n{}", kind.name, of.said);
    // The last cycle may have ended between the two looks.
    let (ours, own) = of.cycles;
    assert!(
        (own - 1..=own).contains(&ours) || own == 0,
        "{}: {ours} GC cycles of {own}",
        kind.name
    );
    if let (ours, Some(own)) = of.goroutines {
        assert!((ours - own).abs() <= 8, "{}: {ours} goroutines of {own}", kind.name);
    }
    let (without, with) = (median(without), median(with));
    format!(
        "| {} {version} | {without:.0} | {with:.0} | {:.3} | {counted:.2} | {ours} / {own} | {} / {} | {} and {} | {} |",
        kind.name,
        with / without,
        of.goroutines.0,
        of.goroutines.1.map_or("–".to_owned(), |own| own.to_string()),
        full.len(),
        others.len(),
        of.lost
    )
}

#[test]
#[ignore = "builds four services: cargo xtask test --services"]
fn services_that_nobody_here_wrote_are_watched_whole() {
    if !privileged() {
        return;
    }
    let load_program = load_built();
    let only = std::env::var("WHYWAIT_SERVICES").unwrap_or_default();
    let kinds = KINDS
        .iter()
        .filter(|kind| only.is_empty() || only.split(',').any(|name| name == kind.name));
    let mut rows = String::new();
    for kind in kinds {
        let (program, version) = built(kind);
        let row = observe(&program, &load_program, &version, kind);
        println!("{row}");
        let _ = writeln!(rows, "{row}");
    }
    let text = format!(
        "# Services of other projects\nMeasured by `cargo xtask test --services`: each is built from its module. {CONNECTIONS} \
         connections send requests and wait for the answers, for {SECONDS} s at a time, {ROUNDS} times without the agent and {ROUNDS} \
         times with it, in turns; medians. The agent runs with its default budget of 1 %. Load, service and agent share the machine's \
         cores. \"Requests counted\" is the number of requests that whywait reports, scaled by its windows, divided by the number of \
         answers that the load generator got in the time that the windows stand for; this takes {COUNTED_SECONDS} s more, with \
         --budget-p99 off. GC cycles are whywait's / the runtime's own (gctrace). Goroutines are whywait's / the service's own, if the \
         service reports them.\n\n| service | requests/s without | with | ratio | requests counted | GC cycles | goroutines | signals \
         always and in windows, none missing | events lost |\n|---|---|---|---|---|---|---|---|---|\n{rows}"
    );
    if only.is_empty() {
        fs::write(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/real-services.md"),
            text,
        )
        .unwrap();
    }
}
