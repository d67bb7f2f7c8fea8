//! What the kernel side loses is counted by its cause, and what must not be lost is not.

mod common;
#[expect(dead_code, reason = "these processes take no steps")]
#[path = "common/processes.rs"]
mod processes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use common::{Agent, Load, attribute, number_of, privileged, shop};
use processes::{NEVER, built, start};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// A network namespace in which the first CPU receives what any of them sends.
struct Receiving {
    name: String,
}

impl Receiving {
    fn new() -> Self {
        let own = Self {
            name: format!("whywait-losses-{}", std::process::id()),
        };
        ip(&["netns", "add", &own.name]);
        ip(&["-n", &own.name, "link", "set", "lo", "up"]);
        // Receive packet steering, by a mask of CPUs (linux, Documentation/networking/scaling.rst).
        let steer = "echo 1 > /sys/class/net/lo/queues/rx-0/rps_cpus";
        ip(&["netns", "exec", &own.name, "sh", "-c", steer]);
        own
    }

    /// Moves this thread into it.
    fn enter(&self) {
        let of = File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(of.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // It may not be there yet.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {}", args.join(" "));
}

/// Connects to a listener of its own, at this address, and closes until it is `over`.
fn connect(address: &str, over: impl Fn() -> bool) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    while !over() {
        let mut client = TcpStream::connect(to).unwrap();
        // Who closes first keeps the port for a while: the server, whose it is anyway.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

/// Runs that the kernel has skipped of each of the agent's programs, by its own account of the agent's descriptors; without those that
/// it always ran. None where it keeps no account.
fn skipped(agent: &Agent) -> Option<BTreeMap<String, i64>> {
    let names: BTreeMap<i64, String> = aya::programs::loaded_programs()
        .filter_map(|program| {
            let program = program.ok()?;
            Some((program.id().into(), program.name_as_str()?.to_owned()))
        })
        .collect();
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())).unwrap();
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let mut programs = 0;
    let mut skipped = BTreeMap::new();
    for text in texts {
        let number = |key: &str| -> Option<i64> {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        };
        // Links tell the program's id too.
        if let (Some(id), Some(misses)) = (number("prog_id:"), number("recursion_misses:")) {
            programs += 1;
            if misses > 0 {
                skipped.insert(names[&id].clone(), misses);
            }
        }
    }
    (programs > 0).then_some(skipped)
}

/// The same as the agent's metrics tell it.
fn told(points: &[Value]) -> BTreeMap<String, i64> {
    let of = |point: &Value| {
        let program = attribute(point, "whywait.probe").expect("a program");
        (program.as_str().unwrap().to_owned(), number_of(&point["asInt"]))
    };
    points.iter().map(of).collect()
}

/// A connect changes the socket's state in its caller's context, and packets that another CPU sends do in interrupts of it: the kernel
/// skips a program that it interrupted, and the agent tells how often.
#[test]
fn runs_that_the_kernel_skips_are_counted_as_it_counts_them() {
    const ENOUGH: i64 = 20;
    const METRIC: &str = "whywait.kernel.program.recursion_misses";
    if !privileged() {
        return;
    }
    if aya::util::online_cpus().unwrap().len() < 2 {
        return eprintln!("SKIPPED: nothing interrupts a program on a machine of one CPU");
    }
    let (_folder, paths) = built(&["watched"]);
    let service = start(&paths[0], &["stay"]);
    let pid = service.pid().to_string();
    let agent = Agent::run(&["--metric-interval", "1s", "--pid", &pid], 1);
    if skipped(&agent).is_none() {
        return eprintln!("SKIPPED: this kernel does not say what it skips (Linux 5.12 does)");
    }
    let namespace = Receiving::new();
    let (end, enough) = (Instant::now() + Duration::from_secs(120), AtomicBool::new(false));
    let over = || enough.load(Relaxed) || Instant::now() > end;
    thread::scope(|scope| {
        for number in 1..=8 {
            let (namespace, over) = (&namespace, &over);
            scope.spawn(move || {
                namespace.enter();
                connect(&format!("127.0.0.{number}"), over);
            });
        }
        while !over() {
            thread::sleep(Duration::from_millis(200));
            let skipped = skipped(&agent).unwrap();
            let is_enough = |program| skipped.get(program).is_some_and(|runs| *runs >= ENOUGH);
            enough.store(["net_set_state", "net_closed"].into_iter().all(is_enough), Relaxed);
        }
    });
    // Nothing is skipped any more: what leaves from now on is the whole.
    let kernels = skipped(&agent).unwrap();
    println!("{kernels:?}");
    assert!(
        kernels.values().sum::<i64>() >= 2 * ENOUGH,
        "nothing was provoked: {kernels:?}"
    );
    let leave = Instant::now() + Duration::from_secs(30);
    while told(&agent.points("whywait", METRIC)) != kernels {
        let found = agent.points("whywait", METRIC);
        assert!(
            Instant::now() < leave,
            "{:?} told, {kernels:?} by the kernel",
            told(&found)
        );
        thread::sleep(Duration::from_millis(200));
    }
    let output = agent.stop();
    assert_eq!(told(&output.points("whywait", METRIC)), kernels);
    let all: i64 = kernels.values().sum();
    let words = format!("{all} runs of programs that the kernel skipped");
    assert!(output.said.contains(&words), "no {words:?} in {}", output.said);
}

/// New programs are told through a ring of their own: they are found though the other one is full, and before the agent looks at every
/// process again, which it does after 30 s.
#[test]
fn processes_that_start_in_a_flood_of_events_are_found() {
    const STARTED: usize = 12;
    if !privileged() {
        return;
    }
    let (_folder, paths) = built(&["late"]);
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    let flood = [
        "--pid",
        &pid,
        "--ring",
        "4KiB",
        "--slow-wait",
        "0ns",
        "--slow-request",
        "0ns",
    ];
    let own = ["--exe", paths[0].to_str().unwrap(), "--duration", "20s"];
    let agent = Agent::run(&[&NEVER[..], &flood, &own].concat(), 1);
    let load = Load::start(&[shop.url("/chan?n=1000")], 0, 10, 4);
    thread::sleep(Duration::from_secs(1));
    let late: Vec<_> = (0..STARTED).map(|_| start(&paths[0], &["stay"])).collect();
    // It ends by itself, before it would look.
    let output = agent.wait();
    drop(load);
    let received = output.points("whywait", "whywait.events.received");
    let received: i64 = received.iter().map(|point| number_of(&point["asInt"])).sum();
    println!(
        "{received} events received, {} found no room",
        output.dropped("ring_full")
    );
    assert!(10 * output.dropped("ring_full") > received, "that is no flood");
    assert_eq!(output.dropped("exec_full"), 0);
    let watching = output.said.lines().filter(|line| line.contains(" watching "));
    let watched: BTreeSet<&str> = watching
        .filter_map(|line| line.split_once("(pid ")?.1.split_once(')').map(|(pid, _)| pid))
        .collect();
    let missing: Vec<u32> = late
        .iter()
        .map(common::Service::pid)
        .filter(|pid| !watched.contains(pid.to_string().as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are not watched: {}", output.said);
}
