//! Services of other projects: how each is built and started.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common;

/// A service: the module it is built from, its main package, and how it is started.
pub struct Kind {
    pub name: &'static str,
    pub module: &'static str,
    pub package: &'static str,
    pub start: fn(&mut Command, &Ports, &Path),
    /// Where it says how many goroutines it has, on its second port, and what stands before the number.
    pub goroutines: Option<(&'static str, &'static str)>,
}

pub struct Ports {
    pub first: u16,
    pub second: u16,
}

pub const KINDS: [Kind; 4] = [
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

pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/services")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap()
}

/// Runs a Go command at the lowest priority; what it printed.
pub fn go(folder: &Path, args: &[&str]) -> String {
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
pub fn built(kind: &Kind) -> (PathBuf, String) {
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

pub fn load_built() -> PathBuf {
    let folder = folder("load");
    fs::write(folder.join("main.go"), include_str!("load.go")).unwrap();
    fs::write(folder.join("go.mod"), "module example.org/load\ngo 1.25\n").unwrap();
    go(&folder, &["build", "-o", "load", "."]);
    folder.join("load")
}

/// A running service, ended by its own pid.
pub struct Running {
    pub child: Child,
    pub ports: Ports,
    pub trace: PathBuf,
}

impl Running {
    pub fn start(kind: &Kind, program: &Path) -> Self {
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
    pub fn cycles(&self) -> i64 {
        let text = fs::read_to_string(&self.trace).unwrap();
        let last = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("gc ")?.split(' ').next()?.parse().ok());
        last.unwrap_or(0)
    }

    pub fn goroutines(&self, kind: &Kind) -> Option<i64> {
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

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
