//! Go's threads: as many as there are, what becomes of their Ps, and those that keep the world from stopping.

mod common;

use std::{fs, process::Command, thread, time::Duration};

use common::{
    Agent, Output, Service, attribute, demo, number_of, privileged,
    quota::{Of, Quota, pin},
    shop,
};
use serde_json::Value;

fn watch(shop: &Service) -> Agent {
    Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1)
}

/// A metric's only point.
fn one(output: &Output, name: &str) -> i64 {
    let points = output.points("go-shop", name);
    assert_eq!(points.len(), 1, "{name}: {points:?}");
    number_of(&points[0]["asInt"])
}

/// Handoffs by reason.
fn handoffs(output: &Output, reason: &str) -> i64 {
    let points = output.points("go-shop", "go.processor.handoffs");
    println!("{points:?}");
    let of = points
        .iter()
        .find(|point| attribute(point, "go.processor.handoff.reason") == Some(reason.into()));
    of.map_or(0, |point| number_of(&point["asInt"]))
}

/// Reads that block their thread for 40 ms each, one after the other: the P that it holds is taken from it, once a read, by the
/// account of the runtime's own trace as well. (Of two threads in such reads, one that comes back may take the other's P itself,
/// which is a steal and no handoff.) And as many threads are there as the kernel and the runtime say.
#[test]
fn sysmon_takes_a_p_from_each_call_that_blocks() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "1")]);
    let agent = watch(&shop);
    let (trace, answer) = thread::scope(|scope| {
        let trace = scope.spawn(|| shop.get_bytes("/debug/trace?seconds=3"));
        thread::sleep(Duration::from_millis(500));
        let answer: Value = serde_json::from_str(&shop.get("/blocked-reads?ms=40&n=20")).unwrap();
        (trace.join().unwrap(), answer)
    });
    thread::sleep(Duration::from_millis(1200));
    let account = shop.oracle();
    let kernel = fs::read_dir(format!("/proc/{}/task", shop.pid())).unwrap().count() as i64;
    let output = agent.stop();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), trace).unwrap();
    let mut command = Command::new(demo("tracestat"));
    for (flag, key) in [("-from", "begin_ns"), ("-to", "end_ns")] {
        command.args([flag, &number_of(&answer[key]).to_string()]);
    }
    let read = command.arg(file.path()).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: Value = serde_json::from_slice(&read.stdout).unwrap();
    let (seen, steals) = (handoffs(&output, "sysmon"), number_of(&read["steals"]));
    println!("20 reads, {steals} Ps stolen by the trace, {seen} handed off by sysmon");
    assert!((19..=23).contains(&steals), "{steals}");
    // The agent watched for some seconds more.
    assert!((19..=steals + 8).contains(&seen), "{seen}, by the trace {steals}");
    let (count, created, ended) = (
        one(&output, "go.thread.count"),
        one(&output, "go.thread.created"),
        one(&output, "go.thread.ended"),
    );
    let runtime = &account["metrics"]["/sched/threads/total:threads"];
    println!("threads: {count}, {created} created, {ended} ended; {kernel} tasks, the runtime says {runtime}");
    assert_eq!((count, created - ended), (kernel, kernel));
    if !runtime.is_null() {
        assert_eq!(number_of(runtime), count);
    }
}

fn text(of: &Value, key: &str) -> i64 {
    attribute(of, key).map_or(0, |value| number_of(&value))
}

/// Stops of the world that took over 1 ms to come about: how long, and what of it the threads were off their cores.
fn late_stops(output: &Output) -> Vec<(i64, Value)> {
    let spans = output.spans("go-shop");
    let length = |span: &Value| number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"]);
    let stopping = |stop: &&Value| {
        let of = spans
            .iter()
            .find(|span| span["name"] == "go.stw.stopping" && span["parentSpanId"] == stop["spanId"]);
        of.map(length)
    };
    let stops = spans
        .iter()
        .filter_map(|stop| Some((stopping(&stop)?, stop.clone())))
        .filter(|(time, _)| *time > 1_000_000);
    stops.collect()
}

/// Goroutines compute on two Ps while the world is stopped again and again.
fn stopped_again_and_again(shop: &Service) -> Vec<(i64, Value)> {
    let pid = shop.pid().to_string();
    let args = ["--pid", &pid, "--metric-interval", "1s", "--max-spans", "100000"];
    let agent = Agent::run(&args, 1);
    thread::scope(|scope| {
        let spin = scope.spawn(|| shop.get("/spin?ms=2500&n=4"));
        thread::sleep(Duration::from_millis(100));
        // Without a pause: so whenever a quota is used up, there is a stop that it may cut in two.
        while !spin.is_finished() {
            shop.get("/processors?n=50");
        }
        spin.join().unwrap();
    });
    late_stops(&agent.stop())
}

/// The share of stopping, in sum, that one of the two threads that matter was off its core for a reason.
fn share(stops: &[(i64, Value)], reason: &str) -> f64 {
    let off = |stop: &Value| {
        text(stop, &format!("go.stw.last_to_stop.{reason}_ns")) + text(stop, &format!("go.stw.requester.{reason}_ns"))
    };
    let whole: i64 = stops.iter().map(|(time, _)| time).sum();
    let part: i64 = stops.iter().map(|(time, stop)| off(stop).min(*time)).sum();
    let named = stops
        .iter()
        .filter(|(_, stop)| attribute(stop, "go.stw.last_to_stop.goroutine.id").is_some());
    println!(
        "{} late stops, {} with a goroutine, {whole} ns, {reason} {part} ns",
        stops.len(),
        named.count()
    );
    for (time, stop) in stops.iter().take(4) {
        println!("{time} {}", stop["attributes"]);
    }
    part as f64 / whole as f64
}

#[test]
fn a_late_p_whose_thread_waits_for_a_core_says_so() {
    if !privileged() {
        return;
    }
    let stops = thread::spawn(|| {
        pin();
        let shop = shop(None, &[("GOMAXPROCS", "2")]);
        let mut hog = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let stops = stopped_again_and_again(&shop);
        hog.kill().unwrap();
        hog.wait().unwrap();
        stops
    })
    .join()
    .unwrap();
    assert!(stops.len() > 4, "{}", stops.len());
    let share = share(&stops, "run_queue");
    assert!(share > 0.7, "{share}");
}

#[test]
fn a_late_p_whose_thread_is_throttled_names_the_cgroup() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "2")]);
    let Some(quota) = Quota::new(shop.pid(), Of::Above) else {
        return;
    };
    // The moment at which the quota is used up need not be one at which the world is asked to stop.
    let long = (0..8).find_map(|_| {
        let stops = stopped_again_and_again(&shop);
        let long: Vec<_> = stops.into_iter().filter(|(time, _)| *time > 20_000_000).collect();
        (!long.is_empty()).then_some(long)
    });
    let long = long.expect("a stop that was throttled");
    let share = share(&long, "throttled");
    // A wait that begins on a busy core counts as run queue, whatever becomes of it; an emulated one is busy more often.
    let is_slow = common::is_slow();
    println!("throttled {share:.3}, by {}", quota.path());
    assert!(share > if is_slow { 0.0 } else { 0.7 }, "{share}");
    for (_, stop) in &long {
        let throttled = text(stop, "go.stw.last_to_stop.throttled_ns") + text(stop, "go.stw.requester.throttled_ns");
        let path = attribute(stop, "whywait.cgroup.path");
        assert_eq!(path, (throttled > 0).then(|| quota.path().into()), "{stop}");
    }
}

/// Reads of a pipe that block for a known time: the distribution, the sum of their goroutines and a span for each long one are
/// what the reads themselves measured.
#[test]
fn system_calls_take_as_long_as_their_callers_say() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "2")]);
    let pid = shop.pid().to_string();
    let args = ["--pid", &pid, "--metric-interval", "1s", "--with", "thread.syscall"];
    let agent = Agent::run(&args, 1);
    let answer: Value = serde_json::from_str(&shop.get("/blocked-reads?ms=30&n=10&goroutines=3")).unwrap();
    thread::sleep(Duration::from_millis(200));
    let output = agent.stop();
    let (waited, began, ended) = (
        number_of(&answer["wait_ns"]),
        number_of(&answer["begin_ns"]),
        number_of(&answer["end_ns"]),
    );
    let of = |metric: &str, key: &str, value: &str| {
        let points = output.points("go-shop", metric);
        let found = points
            .iter()
            .find(|point| attribute(point, key).is_some_and(|found| found.as_str().unwrap().starts_with(value)));
        found.cloned().unwrap_or_else(|| panic!("{value}: {points:?}"))
    };
    let by_origin = number_of(&of("go.goroutine.syscall.time", "go.goroutine.function", "main.readBlocked")["asInt"]);
    let reads = &of("whywait.thread.syscall.duration", "whywait.syscall.name", "read");
    let (count, sum) = (number_of(&reads["count"]), reads["sum"].as_f64().unwrap() * 1e9);
    let spans = output.spans("go-shop");
    let long: Vec<&Value> = spans.iter().filter(|span| span["name"] == "syscall read").collect();
    let length = |span: &Value| number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"]);
    let told: i64 = long.iter().map(|span| length(span)).sum();
    println!(
        "30 reads of {waited} ns in {} ns; {count} reads of {sum:.0} ns, by origin {by_origin} ns, {} spans of {told} ns",
        ended - began,
        long.len()
    );
    assert_eq!(long.len(), 30, "{long:?}");
    for span in &long {
        let function = attribute(span, "go.goroutine.function");
        assert_eq!(function, Some("main.readBlocked".into()), "{span}");
        assert!(attribute(span, "go.goroutine.id").is_some(), "{span}");
    }
    // What the goroutine waits for its turn after the call is part of what it measures.
    let near = |time: f64| time > 0.9 * waited as f64 && time < 1.05 * waited as f64;
    assert!(near(told as f64) && near(by_origin as f64) && near(sum), "{waited}");
    assert!(!spans.iter().any(|span| span["name"] == "syscall futex"));
}
