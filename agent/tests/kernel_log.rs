//! Messages of the eBPF programs: of whom, in what number, and only where they are wanted.

mod common;
#[path = "common/go_build.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_build;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use common::{Agent, Output, is_slow, of_cause, privileged, shop};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// More than one process may have (agent_common::target::PEER_QUOTA), and then more in a second than messages may be; on an emulated machine they come
/// one after the other.
const PEERS: u32 = 2500;
const FEWER_PEERS: u32 = 1200;

/// The agent's log lines that are messages of the eBPF programs.
fn messages(output: &Output) -> impl Iterator<Item = &str> {
    let mark = "eBPF programs: ";
    output
        .said
        .lines()
        .filter_map(move |line| Some(&line[line.find(mark)? + mark.len()..]))
}

/// A request to `server` from each of so many addresses of this host.
fn request_from_each(server: SocketAddr, peers: u32) {
    for peer in 0..peers {
        let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let from = Ipv4Addr::from(0x7f01_0001 + peer);
        bind(&client, &SocketAddr::from((from, 0))).unwrap();
        connect(&client, &server).unwrap();
        let mut client = std::net::TcpStream::from(client);
        client
            .write_all(b"GET /item?id=1 HTTP/1.0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
}

#[test]
fn each_loss_for_want_of_space_is_a_message_or_counted() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    let run = |args: &[&str]| Agent::run(&[&["--pid", &pid], args].concat(), 1);
    let (silent, says) = (run(&[]), run(&["--kernel-log", "debug"]));
    let peers = if is_slow() { FEWER_PEERS } else { PEERS };
    request_from_each(shop.address.parse().unwrap(), peers);
    // A turn of the loop, which looks for messages.
    thread::sleep(Duration::from_millis(2500));
    let (silent, says) = (silent.stop(), says.stop());
    assert!(silent.dropped("peer_quota") > 0);
    assert_eq!(messages(&silent).next(), None);
    let full = format!(
        "process {pid}: it has as many peers, or half as many blocks of histogram buckets, as one process may have"
    );
    let told = messages(&says).filter(|message| *message == full).count() as i64;
    let lost = says.dropped("peer_quota");
    let left_out = of_cause(&says.points("whywait", "whywait.agent.faults"), "kernel_log");
    println!("{lost} lost, {told} told, {left_out} left out");
    // Of other messages, such as those of threads whose wake-up no hook was called for, there are a few, and some are left out too.
    assert!(told > 0, "{}", says.said);
    // An emulated machine may have fewer in each second than are written.
    assert!(left_out > 0 || is_slow(), "{}", says.said);
    let all = messages(&says).count() as i64 + left_out;
    assert!(
        (lost..=lost + lost / 10).contains(&all),
        "{all} of {lost}: {}",
        says.said
    );
}

/// A program that is ended with the test, and the pages that it has printed.
struct Unread {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Unread {
    fn start() -> Self {
        let flags = ["-ldflags=-checklinkname=0"];
        let program = go_build::build("unread", "local", &flags, &[("CGO_ENABLED", "0")]);
        let mut child = Command::new(program).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Ends it; where its pages were.
    fn pages(&mut self) -> BTreeSet<u64> {
        self.child.kill().unwrap();
        let lines = self.out.by_ref().lines().map_while(Result::ok);
        lines
            .filter_map(|line| u64::from_str_radix(line.strip_prefix("page ")?, 16).ok())
            .collect()
    }
}

#[test]
fn an_address_that_could_not_be_read_is_named() {
    if !privileged() {
        return;
    }
    let mut unread = Unread::start();
    let pid = unread.child.id().to_string();
    let agent = Agent::run(&["--pid", &pid, "--metric-interval", "1s", "--kernel-log", "debug"], 1);
    thread::sleep(Duration::from_millis(3000));
    // The last message is in the log when the last loss is counted.
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&unread.child),
        rustix::process::Signal::STOP,
    )
    .unwrap();
    thread::sleep(Duration::from_millis(2500));
    let output = agent.stop();
    let pages = unread.pages();
    let begin = format!("process {pid}, thread ");
    let addresses: Vec<u64> = messages(&output)
        .filter_map(|message| {
            message
                .strip_prefix(&begin)?
                .split_once(": cannot read the memory at 0x")
        })
        .map(|(_, address)| u64::from_str_radix(address, 16).unwrap())
        .collect();
    println!("{addresses:x?} of {} pages", pages.len());
    assert!(addresses.len() > 10, "{}", output.said);
    // In order, each in a page of its own, somewhat behind its begin: pollDesc's rg.
    for address in &addresses {
        let page = address & !0xfff;
        assert!(pages.contains(&page), "{address:x} {pages:x?}");
    }
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len());
    assert_eq!(output.dropped("read_fault"), addresses.len() as i64);
}
