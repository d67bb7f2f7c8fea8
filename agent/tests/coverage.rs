//! What there is of each signal, as it is now: where others are left out, and where the kernel refuses for a while what it permitted.

mod common;

use std::{collections::BTreeSet, thread, time::Duration};

use common::{Agent, Load, Output, Service, attribute, demo, number_of, privileged, shop, stock};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

/// A signal's coverage and cause in a state's point.
fn state(points: &[Value], signal: &str) -> (String, String) {
    let text = |point: &Value, key: &str| {
        attribute(point, key).map_or_else(String::new, |value| value.as_str().unwrap_or_default().to_owned())
    };
    let of = points.iter().rfind(|point| text(point, "whywait.signal") == signal);
    let of = of.unwrap_or_else(|| panic!("nothing of {signal}"));
    (text(of, "whywait.coverage"), text(of, "whywait.cause"))
}

/// States and causes of goroutines' time.
fn causes(output: &Output) -> BTreeSet<(String, String)> {
    let points = output.points("go-shop", "go.goroutine.time");
    let text = |point: &Value, key: &str| Some(attribute(point, key)?.as_str()?.to_owned());
    let of = points.iter().filter(|point| number_of(&point["asInt"]) > 0);
    of.filter_map(|point| Some((text(point, "go.goroutine.state")?, text(point, "go.goroutine.cause")?)))
        .collect()
}

fn watched(args: &[&str]) -> Output {
    let shop = shop(None, &[("GOMAXPROCS", "2")]);
    let pid = shop.pid().to_string();
    let agent = Agent::run(&[&["--pid", &pid], args].concat(), 1);
    for _ in 0..50 {
        shop.get("/item?id=1");
    }
    shop.get("/gc");
    thread::sleep(Duration::from_millis(1500));
    agent.stop()
}

/// At these rates sockets cost less than the default budget: no window hides a request, and nothing is scaled.
#[test]
fn every_request_is_counted_under_the_default_budget() {
    if !privileged() {
        return;
    }
    let (shop, stock) = (shop(None, &[]), stock(false));
    let pids = format!("{},{}", shop.pid(), stock.pid());
    let agent = Agent::run(&["--pid", &pids], 2);
    let loads = [(shop.url("/item?id={n}"), 20), (stock.url("/stock/{n}"), 1000)]
        .map(|(url, rate)| Load::start(&[url], rate, 0, 2));
    thread::sleep(Duration::from_secs(8));
    let sent = loads.map(Load::stop);
    // The programs of the last answers.
    thread::sleep(Duration::from_millis(200));
    let output = agent.stop();
    for (service, sent) in [("go-shop", &sent[0]), ("rust-stock", &sent[1])] {
        let points = output.points(service, "whywait.server.request.duration");
        let counted: i64 = points.iter().map(|point| number_of(&point["count"])).sum();
        let sent = number_of(&sent["count"]);
        println!("{service}: {counted} of {sent}");
        assert!(
            sent > 100 && (counted - sent).abs() <= 2,
            "{service}: {counted} of {sent}\n{}",
            output.said
        );
        let (coverage, cause) = state(&output.points(service, STATE), "net.request");
        assert_eq!(coverage, "full", "{service}: {cause}");
    }
}

/// Nobody saw when threads left their cores: that is not the same as that they never did.
#[test]
fn without_the_kernels_scheduler_time_is_not_split() {
    if !privileged() {
        return;
    }
    let output = watched(&["--without", "thread.run_queue"]);
    let split = causes(&output);
    let unsplit = |state: &str| (state.to_owned(), "unsplit".to_owned());
    assert_eq!(split, [unsplit("runnable"), unsplit("running")].into());
    let states = output.points("go-shop", "whywait.signal.state");
    let (coverage, cause) = state(&states, "go.sched");
    assert_eq!(coverage, "partial", "{cause}");
    assert!(cause.contains("thread.run_queue is off"), "{cause}");
    assert!(output.status.success(), "what the user left out is no failure");

    // With it the same is split.
    let split = causes(&watched(&[]));
    assert!(
        split.contains(&("running".to_owned(), "on_core".to_owned())),
        "{split:?}"
    );
}

/// The runtime's memory is others' too: goroutines alive, the names of wait reasons, which waits are told.
#[test]
fn without_the_runtimes_metrics_its_memory_is_read_for_others() {
    if !privileged() {
        return;
    }
    let output = watched(&["--without", "go.runtime"]);
    assert!(output.points("go-shop", "go.goroutine.count").is_empty());
    assert!(!output.points("go-shop", "go.goroutine.alive").is_empty());
    let waits = output.points("go-shop", "go.goroutine.wait.duration");
    let named = |point: &Value| {
        attribute(point, "go.goroutine.wait_reason")
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let names: Vec<_> = waits.iter().map(named).collect();
    assert!(
        !names.is_empty() && names.iter().all(|name| !name.starts_with("reason ")),
        "{names:?}"
    );
}

/// The begin of a poll is the end of the wait for it.
#[test]
fn without_polls_wakes_are_told() {
    if !privileged() {
        return;
    }
    let stock = stock(false);
    let agent = Agent::run(&["--pid", &stock.pid().to_string(), "--without", "tokio.poll"], 1);
    for _ in 0..50 {
        stock.get("/stock/1");
    }
    let output = agent.stop();
    let wakes = output.points("rust-stock", "tokio.task.wake_to_poll.duration");
    let wakes: i64 = wakes.iter().map(|point| number_of(&point["count"])).sum();
    assert!(wakes >= 100, "{wakes} wakes of 50 connections");
    assert!(output.points("rust-stock", "tokio.task.poll.duration").is_empty());
}

/// The most files that a process may have open; it is its own fault to the kernel when more are asked for, a link of a hook's or of a
/// probe's among them.
fn files(pid: u32, most: u64) {
    let pid = Pid::from_raw(pid as i32);
    let limit = |current| Rlimit {
        current: Some(current),
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    prlimit(pid, Resource::Nofile, limit(most)).unwrap();
}

/// How many files a process may have open more are left of a limit: the kernel gives it the lowest number that is free.
fn leave(pid: u32, more: usize) {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: BTreeSet<u64> = open
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let last = (0..).filter(|number| !open.contains(number)).nth(more).unwrap();
    files(pid, last);
}

/// A service that an agent takes while it may open so few files that it cannot attach all of the service's probes, but some: `is` says
/// by the signals' states whether it is so. And its name.
fn refused(agent: &Agent, start: impl Fn(&str) -> Service, is: impl Fn(&[Value]) -> bool) -> (Service, String) {
    for more in 1..20 {
        files(agent.pid(), 1024);
        leave(agent.pid(), more);
        let name = format!("refused-{more}");
        let service = start(&name);
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(500));
            let states = agent.points(&name, STATE);
            if !states.is_empty() && is(&states) {
                return (service, name);
            }
        }
    }
    panic!("its probes are all attached, or none");
}

const STATE: &str = "whywait.signal.state";

/// Each waits for the next try, side by side.
#[test]
fn what_cannot_be_attached_is_tried_again() {
    thread::scope(|scope| {
        for of in [
            what_cannot_be_attached_is_told_until_it_can,
            what_is_always_in_place_is_tried_again_without_windows,
            polls_whose_ends_cannot_be_attached_are_counted_until_they_can,
        ] {
            scope.spawn(of);
        }
    });
}

/// Hooks of a window that cannot be attached are told while it is so, and are there again when they can be.
fn what_cannot_be_attached_is_told_until_it_can() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let settings = [
        // Less than sockets alone cost.
        ("WHYWAIT_BUDGET", "0.3%"),
        ("WHYWAIT_BUDGET_P99", "off"),
        // Of a core: while no file can be opened, the target's own CPU time is not known.
        ("WHYWAIT_BUDGET_FLOOR", "0.1%"),
    ];
    let args = ["--pid", &shop.pid().to_string(), "--metric-interval", "1s"];
    let agent = Agent::run_with(&args, 1, &settings);
    let load = Load::start(&[shop.url("/item?id=1")], 2000, 120, 4);
    let states = || agent.points("go-shop", "whywait.signal.state");
    let wait_for = |what: &str, is: &dyn Fn(&[Value]) -> bool| {
        for _ in 0..120 {
            let states = states();
            if !states.is_empty() && is(&states) {
                return;
            }
            thread::sleep(Duration::from_millis(500));
        }
        panic!("{what}: never so: {:?}", states());
    };
    let coverage = |states: &[Value], signal: &str| state(states, signal).0;
    let windows = |states: &[Value]| {
        ["thread.run_queue", "net.request", "go.sched"]
            .into_iter()
            .all(|signal| coverage(states, signal) == "windows")
    };
    wait_for("seen in windows", &windows);
    files(agent.pid(), 3);
    // Whether a window of the probes comes meanwhile is the governor's choice.
    wait_for("refused", &|states| {
        ["thread.run_queue", "net.request"]
            .into_iter()
            .all(|signal| coverage(states, signal) == "off")
    });
    let (_, cause) = state(&states(), "thread.run_queue");
    assert!(cause.contains("refused it just now"), "{cause}");
    // What is always in place stays.
    assert_eq!(coverage(&states(), "net.connect"), "windows");
    files(agent.pid(), 1024);
    wait_for("back", &windows);
    load.stop();
    let output = agent.stop();
    assert!(output.said.contains("thread.run_queue is on again"), "{}", output.said);
}

/// Those that are always in place are tried again also where no window of others opens, in which they would be.
fn what_is_always_in_place_is_tried_again_without_windows() {
    if !privileged() {
        return;
    }
    let program = demo("go-shop");
    let start = |name: &str| Service::start(&program, &["-listen", "127.0.0.1:0"], &[("OTEL_SERVICE_NAME", name)]);
    let _other = start("other");
    let args = ["--exe", program.to_str().unwrap(), "--metric-interval", "1s"];
    let agent = Agent::run(
        &[&args[..], &["--without", "go.sched,go.assist,go.handoff"]].concat(),
        1,
    );
    let lacks = |states: &[Value]| {
        ["go.gc", "go.stw"]
            .into_iter()
            .any(|signal| state(states, signal).1.contains("Too many open files"))
    };
    let (shop, name) = refused(&agent, start, lacks);
    files(agent.pid(), 1024);
    let back = (0..120).any(|_| {
        thread::sleep(Duration::from_millis(500));
        !lacks(&agent.points(&name, STATE))
    });
    assert!(back, "{:?}", agent.points(&name, STATE));
    for _ in 0..3 {
        shop.get("/gc");
    }
    thread::sleep(Duration::from_millis(1500));
    let output = agent.stop();
    let spans = output.spans(&name);
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).count();
    assert!(named("go.gc.cycle") >= 3, "{}", output.said);
    let states = output.points(&name, STATE);
    assert_eq!(
        state(&states, "go.stw"),
        state(&output.points("other", STATE), "go.stw")
    );
}

/// A poll whose end cannot be seen is not under way for ever: how often such tasks are polled is told, until it can.
fn polls_whose_ends_cannot_be_attached_are_counted_until_they_can() {
    if !privileged() {
        return;
    }
    let program = demo("rust-stock");
    let start = |name: &str| Service::start(&program, &["--listen", "127.0.0.1:0"], &[("OTEL_SERVICE_NAME", name)]);
    let _other = start("other");
    let args = ["--exe", program.to_str().unwrap(), "--metric-interval", "1s"];
    let agent = Agent::run(&args, 1);
    let lacks = |states: &[Value]| {
        let (coverage, cause) = state(states, "tokio.poll");
        coverage == "partial" && cause.contains("transition_to_idle")
    };
    let (stock, name) = refused(&agent, start, lacks);
    let count = |metric: &str, key: &str| -> i64 {
        let points = agent.points(&name, metric);
        points.iter().map(|point| number_of(&point[key])).sum()
    };
    let unended = || count("tokio.task.poll.unended", "asInt");
    let ended = || count("tokio.task.poll.duration", "count");
    let load = || {
        for _ in 0..50 {
            stock.get("/stock/1");
        }
        thread::sleep(Duration::from_millis(2500));
    };
    load();
    assert!(unended() >= 50, "{}", unended());
    assert_eq!(ended(), 0);
    let (_, cause) = state(&agent.points(&name, STATE), "tokio.poll");
    assert!(cause.contains("their polls are counted, but not timed"), "{cause}");
    files(agent.pid(), 1024);
    let back = (0..120).any(|_| {
        thread::sleep(Duration::from_millis(500));
        !lacks(&agent.points(&name, STATE))
    });
    assert!(back, "{:?}", agent.points(&name, STATE));
    thread::sleep(Duration::from_millis(1500));
    let before = unended();
    load();
    assert!(ended() >= 50, "{}", ended());
    assert_eq!(unended(), before);
    let named = |point: &Value| {
        attribute(point, "tokio.task.future")
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let futures: Vec<String> = agent
        .points(&name, "tokio.task.poll.unended")
        .iter()
        .map(named)
        .collect();
    assert!(
        !futures.is_empty() && futures.iter().all(|name| name != "unknown"),
        "{futures:?}"
    );
    drop(agent.stop());
}
