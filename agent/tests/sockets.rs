//! Connections of every kind: who connected, told by the socket; each its own, whatever address the kernel gives it; and every
//! request of them, however busy the machine.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    iter,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use common::{
    Agent, Output, attribute, list, load,
    maps::keys,
    number_of, privileged,
    quota::{Of, Quota},
    shop, stock,
};
use serde_json::Value;

const PROGRAM: &str = include_str!("fixtures/go_sockets.go.txt");
const SERVED: &str = "whywait.server.request.duration";
const MADE: &str = "whywait.client.request.duration";
const CONNECTS: &str = "whywait.tcp.connect.duration";
/// For what is still on its way when a load ends.
const SETTLE: Duration = Duration::from_millis(500);

fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sockets");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("main.go"), PROGRAM).unwrap();
    fs::write(folder.join("go.mod"), "module example.org/sockets\ngo 1.22\n").unwrap();
    let status = Command::new("go")
        .current_dir(&folder)
        .args(["build", "-o", "sockets", "."])
        .status()
        .unwrap_or_else(|error| panic!("go: {error}; `cargo xtask test` puts it into PATH"));
    assert!(status.success(), "go build failed");
    folder.join("sockets")
}

/// The program (fixtures/go_sockets.go.txt), with connections that are older than the agent.
struct Sockets {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    ports: Vec<(String, i64)>,
}

impl Sockets {
    fn start(kinds: &[&str]) -> Self {
        let mut child = Command::new(program())
            .arg(kinds.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut output = BufReader::new(output).lines();
        let line = output.next().expect("it says its ports").unwrap();
        let ports = line.strip_prefix("listening on ").unwrap().split(' ').map(|word| {
            let (kind, port) = word.split_once('=').unwrap();
            (kind.to_owned(), port.parse().unwrap())
        });
        let ports = ports.collect();
        Self {
            child,
            input,
            output,
            ports,
        }
    }

    fn watch(&self, args: &[&str]) -> Agent {
        let pid = self.child.id().to_string();
        let mut all = vec!["--pid", &pid];
        all.extend(args);
        Agent::run(&all, 1)
    }

    /// Does what `command` says; what it prints meanwhile.
    fn run(&mut self, command: &str) -> Vec<String> {
        writeln!(self.input, "{command}").unwrap();
        let lines = self.output.by_ref().map(Result::unwrap);
        let said: Vec<String> = lines.take_while(|line| line != "done").collect();
        assert!(self.child.try_wait().unwrap().is_none(), "{command}: it ended");
        said
    }

    /// The same, on new connections: the port they went to.
    fn connect(&mut self, command: &str) -> i64 {
        self.run(command)[0].parse().unwrap()
    }

    fn port(&self, kind: &str) -> i64 {
        self.ports.iter().find(|(of, _)| of == kind).unwrap().1
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many a metric counts, by the server's port; each of one point.
fn by_port(output: &Output, metric: &str) -> Vec<(i64, i64)> {
    let point = |point: &Value| {
        let port = attribute(point, "server.port").expect("a port").as_i64().unwrap();
        let count = if point["count"].is_null() {
            &point["asInt"]
        } else {
            &point["count"]
        };
        (port, number_of(count))
    };
    let mut found: Vec<(i64, i64)> = output.points("sockets", metric).iter().map(point).collect();
    found.sort_unstable();
    found
}

fn has_multipath() -> bool {
    let has = Path::new("/proc/sys/net/mptcp/enabled").exists();
    if !has {
        eprintln!("SKIPPED: this kernel has no MPTCP");
    }
    has
}

fn sorted(mut ports: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ports.sort_unstable();
    ports
}

fn lost(output: &Output) -> Vec<(String, i64)> {
    let points = output.points("whywait", "whywait.events.dropped");
    let lost = points.iter().map(|point| {
        let cause = attribute(point, "whywait.cause").expect("a cause");
        (cause.as_str().unwrap().to_owned(), number_of(&point["asInt"]))
    });
    lost.filter(|(cause, count)| *count != 0 && cause != "thread_unseen")
        .collect()
}

#[test]
fn who_connected_is_told_by_the_socket() {
    if !privileged() {
        return;
    }
    let mut kinds = vec!["v4", "v6", "dual", "bound", "backlog0", "reuseport"];
    kinds.extend(has_multipath().then_some("multipath"));
    let mut sockets = Sockets::start(&kinds);
    let agent = sockets.watch(&[]);
    let mut expected = Vec::new();
    for (count, kind) in (10..).zip(&kinds) {
        sockets.run(&format!("request {kind} {count}"));
        expected.push((sockets.port(kind), count));
    }
    let old = expected.len();
    for (count, kind) in (5..).zip(&kinds) {
        expected.push((sockets.connect(&format!("connect {kind} {count}")), count));
    }
    thread::sleep(SETTLE);
    let output = agent.stop();
    assert_eq!(by_port(&output, CONNECTS), sorted(expected[old..].to_vec()));
    assert_eq!(by_port(&output, SERVED), sorted(expected.clone()));
    assert_eq!(by_port(&output, MADE), sorted(expected));
    assert_eq!(lost(&output), []);
}

/// Of a listener whose queue is of no length nothing but the bytes tells who accepted, and a FIN counts as one.
#[test]
fn who_has_sent_its_last_word_is_still_told_from_who_connected() {
    if !privileged() {
        return;
    }
    let mut sockets = Sockets::start(&["backlog0"]);
    sockets.run("last-word backlog0 1");
    let agent = sockets.watch(&[]);
    sockets.run("after-it backlog0 1");
    thread::sleep(SETTLE);
    let output = agent.stop();
    let expected = [(sockets.port("backlog0"), 1)];
    assert_eq!(by_port(&output, "whywait.server.request.unanswered"), expected);
    assert_eq!(by_port(&output, "whywait.client.request.unanswered"), expected);
}

/// What is told of requests whose calls return late, of TCP and MPTCP.
fn late(how: &str, rounds: i64) -> (impl Iterator<Item = &'static str> + Clone, Output, Sockets) {
    let kinds = iter::once("v4").chain(has_multipath().then_some("multipath"));
    let mut sockets = Sockets::start(&kinds.clone().collect::<Vec<_>>());
    let agent = sockets.watch(&[]);
    for kind in kinds.clone() {
        sockets.run(&format!("{how} {kind} {rounds}"));
    }
    thread::sleep(SETTLE);
    (kinds, agent.stop(), sockets)
}

#[test]
fn an_answer_that_is_told_after_the_next_request_still_ends_its_own() {
    const ROUNDS: i64 = 10;
    if !privileged() {
        return;
    }
    let (kinds, output, sockets) = late("late-answer", ROUNDS);
    let expected = kinds.map(|kind| (sockets.port(kind), 1 + 2 * ROUNDS));
    let expected = sorted(expected.collect());
    assert_eq!(by_port(&output, SERVED), expected);
    assert_eq!(by_port(&output, MADE), expected);
    assert_eq!(lost(&output), []);
}

#[test]
fn a_request_that_is_told_after_its_answer_is_counted_as_lost() {
    const ROUNDS: i64 = 10;
    if !privileged() {
        return;
    }
    let (kinds, output, sockets) = late("late-request", ROUNDS);
    let unordered = ROUNDS * kinds.clone().count() as i64;
    assert_eq!(lost(&output), [("request_unordered".to_owned(), unordered)]);
    let each = |count| sorted(kinds.clone().map(|kind| (sockets.port(kind), count)).collect());
    assert_eq!(by_port(&output, SERVED), each(1 + 2 * ROUNDS));
    assert_eq!(by_port(&output, MADE), each(1 + ROUNDS));
}

#[test]
fn a_sockets_address_that_is_used_again_is_another_connection() {
    const CONNECTIONS: i64 = 40;
    if !privileged() {
        return;
    }
    for without in [&["--without", "net.connect"][..], &[]] {
        let mut sockets = Sockets::start(&["v4"]);
        let agent = sockets.watch(without);
        let command = format!("connect v4 {CONNECTIONS}");
        let ports = [(); 3].map(|()| (sockets.connect(&command), CONNECTIONS));
        sockets.run("request v4 1");
        thread::sleep(SETTLE);
        assert_eq!(
            keys::<u64>(&agent, "SOCKET_KEYS").len(),
            2,
            "those that are open; {without:?}"
        );
        let output = agent.stop();
        let mut expected = ports.to_vec();
        expected.push((sockets.port("v4"), 1));
        let expected = sorted(expected);
        assert_eq!(by_port(&output, SERVED), expected, "{without:?}");
        assert_eq!(by_port(&output, MADE), expected, "{without:?}");
    }
}

#[test]
fn a_request_whose_connection_ends_before_its_answer_is_counted() {
    const ROUNDS: i64 = 100;
    if !privileged() {
        return;
    }
    let mut kinds = vec!["v4"];
    kinds.extend(has_multipath().then_some("multipath"));
    let mut sockets = Sockets::start(&kinds);
    let agent = sockets.watch(&[]);
    let (mut cut_off, mut answered) = (Vec::new(), Vec::new());
    // Of MPTCP no reset comes while the answer is sent: to the service it is one.
    cut_off.push((sockets.connect(&format!("gone v4 {ROUNDS}")), ROUNDS));
    let mut read_after = Vec::new();
    for kind in &kinds {
        read_after.push((sockets.connect(&format!("read-after {kind} {ROUNDS}")), ROUNDS));
        for (end, is_answered) in [
            ("reset", false),
            ("give-up", false),
            ("refuse", false),
            ("half-close", true),
            ("reset-after", true),
        ] {
            let ports = if is_answered { &mut answered } else { &mut cut_off };
            ports.push((sockets.connect(&format!("{end} {kind} {ROUNDS}")), ROUNDS));
        }
    }
    thread::sleep(SETTLE);
    let output = agent.stop();
    let cut_off = sorted(cut_off);
    for unanswered in ["whywait.server.request.unanswered", "whywait.client.request.unanswered"] {
        assert_eq!(by_port(&output, unanswered), cut_off, "{unanswered}");
    }
    // Where the last bytes are read of a connection that is over on both sides, that is counted in place of the request.
    let is_late = |port: i64| read_after.iter().any(|(late, _)| *late == port);
    let (late, made): (Vec<_>, Vec<_>) = by_port(&output, MADE).into_iter().partition(|(port, _)| is_late(*port));
    assert_eq!(made, sorted(answered.clone()));
    let lost: BTreeMap<String, i64> = lost(&output).into_iter().collect();
    let closed = lost.get("socket_closed").copied().unwrap_or_default();
    let told: i64 = late.iter().map(|(_, count)| count).sum();
    println!("{closed} read after the close, {told} before it");
    assert_eq!(told + closed, ROUNDS * read_after.len() as i64);
    assert!(closed > 0 && lost.len() == 1, "{lost:?}");
    answered.extend(&read_after);
    assert_eq!(by_port(&output, SERVED), sorted(answered));
    let counted = format!("{} served, {0} made", cut_off.len() as i64 * ROUNDS);
    assert!(output.said.contains(&counted), "{counted}: {}", output.said);
}

#[test]
fn each_of_many_peers_has_its_own_series() {
    const PEERS: usize = 600;
    if !privileged() {
        return;
    }
    let mut sockets = Sockets::start(&["v4"]);
    let agent = sockets.watch(&[]);
    let port = sockets.connect(&format!("peers v4 {PEERS}"));
    thread::sleep(SETTLE);
    let output = agent.stop();
    assert_eq!(lost(&output), []);
    // So many points that they are in more than one request.
    let served: BTreeMap<String, i64> = output
        .metrics
        .iter()
        .flat_map(|request| list(&request["resourceMetrics"]))
        .flat_map(|resource| list(&resource["scopeMetrics"]))
        .flat_map(|scope| list(&scope["metrics"]))
        .filter(|metric| metric["name"] == SERVED)
        .flat_map(|metric| list(&metric["exponentialHistogram"]["dataPoints"]))
        .map(|point| {
            let client = attribute(point, "client.address").expect("a client");
            (client.to_string(), number_of(&point["count"]))
        })
        .collect();
    assert_eq!((served.len(), served.values().max()), (PEERS, Some(&1)));
    assert_eq!(by_port(&output, MADE), [(port, PEERS as i64)]);
}

/// Processes that compute until this goes out of scope.
struct Spinners(Vec<Child>);

impl Spinners {
    fn start(count: usize) -> Self {
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..count).map(|_| spin()).collect())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn every_request_is_told_on_a_busy_machine() {
    const SECONDS: u32 = 4;
    if !privileged() {
        return;
    }
    let (stock, shop) = (stock(false), shop(None, &[]));
    let pids = [stock.pid().to_string(), shop.pid().to_string()];
    let args = ["--pid", &pids[0], "--pid", &pids[1], "--slow-request", "10s"];
    let agent = Agent::run(&args, 2);
    // The agent gets a core when nobody else wants one; the Go service a fifth of one.
    let status = Command::new("renice")
        .args(["-n", "19", "-p", &agent.pid().to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let quota = Quota::new(shop.pid(), Of::Own);
    let spinners = Spinners::start(4);
    let mut told = Vec::new();
    let url = shop.url("/chan?n=1");
    let of_shop = thread::spawn(move || load(&[url], 0, SECONDS, 8));
    let of_stock = load(&[stock.url("/stock/{n}")], 2000, SECONDS, 8);
    let of_shop = of_shop.join().unwrap();
    drop(spinners);
    drop(quota);
    thread::sleep(4 * SETTLE);
    let output = agent.stop();
    for (service, sent) in [("go-shop", of_shop), ("rust-stock", of_stock)] {
        let points = output.points(service, SERVED);
        let served: i64 = points.iter().map(|point| number_of(&point["count"])).sum();
        println!("{service}: sent {}, told {served}", sent["count"]);
        assert_eq!(sent["errors"], 0, "{sent}");
        told.push((service, served, number_of(&sent["count"])));
    }
    for (service, served, sent) in told {
        assert_eq!(served, sent, "{service}; lost {:?}", lost(&output));
    }
}
