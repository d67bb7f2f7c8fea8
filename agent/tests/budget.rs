//! The budget on real services: what is kept within it, and that what windows saw is weighed to the truth.

mod common;

use std::{thread, time::Duration};

use common::{Agent, Output, Service, attribute, load, number_of, privileged, shop, stock};
use serde_json::Value;

const SECONDS: u32 = 15;
/// How long everything is seen, s.
const WHOLE: u32 = 4;
/// How long the load lasts, s.
const GENERATE: u32 = SECONDS + WHOLE + 3;
const STOCK_RATE: u32 = 3000;
const SHOP_RATE: u32 = 1500;
const BUDGET: f64 = 0.03;
const STOCK: &str = "rust-stock-unstable";

/// A metric's points of one plane, or of all, summed.
fn sum(output: &Output, service: &str, metric: &str, plane: Option<&str>) -> f64 {
    let of_plane =
        |point: &&Value| plane.is_none_or(|plane| attribute(point, "whywait.plane") == Some(Value::from(plane)));
    let value = |point: Value| match point.get("count") {
        Some(count) => number_of(count),
        None => number_of(&point["asInt"]),
    };
    let points = output.points(service, metric);
    points.iter().filter(of_plane).cloned().map(value).sum::<i64>() as f64
}

/// The weighed count of a metric for each second of the time that its windows stand for.
fn rate(output: &Output, service: &str, metric: &str, plane: &str) -> f64 {
    let seconds = sum(output, service, "whywait.window.time", Some(plane)) / 1e9;
    assert!(seconds > 1.0, "{service}: windows of {plane} stand for {seconds} s");
    sum(output, service, metric, None) / seconds
}

#[track_caller]
fn check_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let ratio = found / expected;
    println!("{what}: {found:.0} for {expected:.0}, ratio {ratio:.3}");
    assert!((ratio - 1.0).abs() <= tolerance, "{what}: {found} for {expected}");
}

fn coverage(output: &Output, service: &str, signal: &str) -> Value {
    let points = output.points(service, "whywait.signal.state");
    let state = points
        .iter()
        .find(|point| attribute(point, "whywait.signal") == Some(Value::from(signal)));
    state
        .and_then(|state| attribute(state, "whywait.coverage"))
        .unwrap_or_default()
}

fn cpu(service: &Service) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 1e9 / rustix::param::clock_ticks_per_second() as f64
}

/// Without a floor even these rates are more than the budget pays for all the time.
#[test]
fn what_windows_see_is_weighed_to_the_truth_and_within_the_budget() {
    if !privileged() {
        return;
    }
    let stock = stock(true);
    let shop = shop(Some(&stock), &[]);
    let generators = [
        (stock.url("/stock/{n}"), STOCK_RATE),
        (shop.url("/item?id={n}"), SHOP_RATE),
    ]
    .map(|(url, rate)| thread::spawn(move || load(&[url], rate, GENERATE, 2)));
    // Nothing is compared until both run at their rates.
    thread::sleep(Duration::from_secs(1));
    let (before, cpus) = (stock.oracle(), [cpu(&shop), cpu(&stock)]);
    let pids = format!("{},{}", shop.pid(), stock.pid());
    let output = Agent::run(
        &[
            "--pid",
            &pids,
            "--budget",
            "3%",
            "--budget-floor",
            "0.001%",
            "--duration",
            "15s",
        ],
        2,
    )
    .wait();
    let used = [cpu(&shop) - cpus[0], cpu(&stock) - cpus[1]];
    let duration = format!("{WHOLE}s");
    let whole_output = Agent::run(&["--pid", &shop.pid().to_string(), "--duration", &duration], 1).wait();
    let after = stock.oracle();
    let sent: Vec<Value> = generators.map(|generator| generator.join().unwrap()).into();
    assert!(output.status.success(), "{}", output.said);

    for (service, signals) in [
        ("go-shop", ["go.sched", "net.request"]),
        (STOCK, ["tokio.poll", "net.request"]),
    ] {
        for signal in signals {
            assert_eq!(
                coverage(&output, service, signal),
                "windows",
                "{service} {signal}: {}",
                output.said
            );
        }
    }
    // The generators' rates were constant, and so were the services' own.
    let shop_requests = rate(&output, "go-shop", "whywait.server.request.duration", "hooks");
    // A busy machine may send fewer than were asked for.
    let asked = number_of(&sent[1]["count"]) as f64 / f64::from(GENERATE);
    check_near("requests/s of go-shop", shop_requests, asked, 0.1);
    let seconds = (number_of(&after["mono_ns"]) - number_of(&before["mono_ns"])) as f64 / 1e9;
    let polls = (number_of(&after["task_polls"]["count"]) - number_of(&before["task_polls"]["count"])) as f64;
    let found = rate(&output, STOCK, "tokio.task.poll.duration", "probes");
    check_near("polls/s of rust-stock", found, polls / seconds, 0.15);
    // Of goroutines there is no account of the whole; what the probes see all the time is one.
    let found = rate(&output, "go-shop", "go.goroutine.runnable.duration", "probes");
    let whole = sum(&whole_output, "go-shop", "go.goroutine.runnable.duration", None);
    check_near("waits/s of go-shop", found, whole / f64::from(WHOLE), 0.15);

    for (service, used) in [("go-shop", used[0]), (STOCK, used[1])] {
        let spent = sum(&output, service, "whywait.overhead.cpu.time", None);
        let share = spent / (used - spent);
        println!("{service}: {:.2} % of its CPU", 100.0 * share);
        // In so short a run the first window, whose cost nobody knew yet, still weighs.
        assert!(share < 2.0 * BUDGET, "{service}: {share} of a budget of {BUDGET}");
    }
}
