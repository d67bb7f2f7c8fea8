//! The image as a DaemonSet runs it: privileged, in the host's pid namespace, alone in a FROM-scratch root; it watches a
//! service in another such container.

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use common::{attribute, demo, list, privileged};
use serde_json::Value;

/// Generous: the tests' machines are shared and small.
const SOON: Duration = Duration::from_secs(60);
/// What small machines permit.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1000:1000"];

fn podman(args: &[&str]) -> Output {
    Command::new("podman")
        .args(["--runtime", "runc"])
        .args(args)
        .output()
        .unwrap()
}

/// Its standard output; a failure fails the test.
fn podman_ok(args: &[&str]) -> String {
    let output = podman(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "podman {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether containers can be had; says why not.
fn containers() -> bool {
    let has = |name: &str| {
        Command::new(name)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let missing: Vec<&str> = ["podman", "runc"].into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI must have {}",
        missing.join(" and ")
    );
    eprintln!("SKIPPED: needs {}", missing.join(" and "));
    false
}

/// A container and its image, gone with the test.
struct Container {
    name: String,
    image: String,
}

impl Container {
    fn run(name: &str, image: &str, options: &[&str], args: &[&str]) -> Self {
        let own = Self {
            name: name.to_owned(),
            image: image.to_owned(),
        };
        let fixed = ["run", "--detach", "--network=host", "--name", name];
        podman_ok(&[&fixed[..], &LIMITS, options, &[image], args].concat());
        own
    }

    fn inspect(&self, field: &str) -> String {
        podman_ok(&["inspect", "--format", field, &self.name])
    }

    /// Both streams.
    fn said(&self) -> String {
        let output = podman(&["logs", &self.name]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        podman(&["rm", "--force", "--time", "1", &self.name]);
        podman(&["rmi", "--force", &self.image]);
    }
}

fn wait<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The status and body of an answer, if there is one.
fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Every resource of a file of JSON lines.
fn resources(file: &Path, field: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .flat_map(|line| list(&line[field]).cloned().collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_image_watches_a_service_in_another_container() {
    if !(privileged() && containers()) {
        return;
    }
    let own = std::process::id();
    let (agent_image, shop_image) = (
        format!("localhost/whywait-test:{own}"),
        format!("localhost/shop-test:{own}"),
    );
    let built = Command::new(env!("CARGO"))
        .args(["xtask", "image", "--tag", &agent_image])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status();
    assert!(built.unwrap().success(), "cargo xtask image");

    // The service, in an image of nothing else.
    let context = tempfile::tempdir().unwrap();
    fs::copy(demo("go-shop"), context.path().join("go-shop")).unwrap();
    let file = context.path().join("Containerfile");
    fs::write(
        &file,
        "FROM scratch\nCOPY go-shop /go-shop\nENTRYPOINT [\"/go-shop\"]\n",
    )
    .unwrap();
    let (file, folder) = (file.to_str().unwrap(), context.path().to_str().unwrap());
    podman_ok(&["build", "--tag", &shop_image, "--file", file, folder]);
    let shop = Container::run(&format!("shop-{own}"), &shop_image, &[], &["-listen", "127.0.0.1:0"]);
    let address = wait("the service", || {
        let said = shop.said();
        let line = said.lines().find_map(|line| line.strip_prefix("listening on "))?;
        Some(line.trim().to_owned())
    });
    let (id, pid) = (shop.inspect("{{.Id}}"), shop.inspect("{{.State.Pid}}"));
    assert!(
        !Path::new("/go-shop").exists(),
        "the agent can read it through /proc/PID/exe only"
    );

    let out = tempfile::tempdir().unwrap();
    let health = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let volume = format!("{}:/out", out.path().display());
    let agent = Container::run(
        &format!("whywait-{own}"),
        &agent_image,
        &["--privileged", "--pid=host", "--volume", &volume],
        &[
            "run",
            "--plain",
            "--out",
            "/out",
            "--pid",
            &pid,
            "--health-listen",
            &health,
        ],
    );
    wait("readiness", || {
        get(&health, "/readyz").filter(|answer| *answer == (200, "ok\n".to_owned()))
    });
    assert_eq!(get(&health, "/livez"), Some((200, "ok\n".to_owned())));
    for number in 0..20 {
        assert_eq!(get(&address, &format!("/item?id={number}")).unwrap().0, 200);
    }
    assert_eq!(get(&address, "/gc").unwrap().0, 200);
    podman_ok(&["kill", "--signal", "TERM", &agent.name]);
    let code = podman_ok(&["wait", &agent.name]);
    let said = agent.said();
    assert_eq!(code, "0", "{said}");
    assert!(said.contains("everything is detached"), "{said}");

    for (file, field) in [("traces.jsonl", "resourceSpans"), ("metrics.jsonl", "resourceMetrics")] {
        let found = resources(&out.path().join(file), field);
        let of_shop: Vec<&Value> = found
            .iter()
            .map(|resource| &resource["resource"])
            .filter(|resource| attribute(resource, "service.name") == Some("go-shop".into()))
            .collect();
        assert!(!of_shop.is_empty(), "{file}: {said}");
        for resource in of_shop {
            assert_eq!(attribute(resource, "container.id"), Some(id.as_str().into()), "{file}");
            let path = attribute(resource, "process.executable.path");
            assert_eq!(path, Some("/go-shop".into()), "{file}");
        }
    }
    let traces = fs::read_to_string(out.path().join("traces.jsonl")).unwrap();
    assert!(traces.contains("go.gc.cycle"), "{said}");
    let metrics = fs::read_to_string(out.path().join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("whywait.server.request.duration"), "{said}");
}
