//! Who pays for the GC, what limits it, and what it does between its cycles: against runtime/metrics inside the process.

mod common;

use std::{thread, time::Duration};

use common::{Agent, attribute, number_of, privileged, shop};
use serde_json::Value;

fn figure(account: &Value, name: &str) -> f64 {
    account["metrics"][name].as_f64().unwrap_or_default()
}

fn seconds_of_assists(account: &Value) -> f64 {
    figure(account, "/cpu/classes/gc/mark/assist:cpu-seconds")
}

/// The functions of a cycle's span, with what each paid, ns.
fn payers(cycle: &Value) -> Option<Vec<(String, i64)>> {
    let functions =
        common::list(&cycle["attributes"]).find(|attribute| attribute["key"] == "go.gc.assist.functions")?;
    let values = common::list(&functions["value"]["arrayValue"]["values"]);
    let told = values.map(|value| {
        let (function, time) = value["stringValue"].as_str().unwrap().rsplit_once(' ').unwrap();
        (function.to_owned(), time.parse().unwrap())
    });
    Some(told.collect())
}

/// Of all goroutines only those of one handler allocate while the GC marks.
#[test]
fn who_allocates_pays_the_assists() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "2")]);
    shop.get("/hold?mb=32");
    let pid = shop.pid().to_string();
    let arguments = ["--pid", &pid, "--metric-interval", "1s", "--max-spans", "100000"];
    let agent = Agent::run(&[&arguments[..], &["--budget", "off"]].concat(), 1);
    // The runtime's own sums are those of its last cycle's end.
    shop.get("/gc");
    let before = shop.oracle();
    for _ in 0..4 {
        shop.get("/churn?mb=160&n=3");
    }
    shop.get("/gc");
    let after = shop.oracle();
    thread::sleep(Duration::from_millis(1500));
    let output = agent.stop();
    let points = output.points("go-shop", "go.gc.assist.time");
    let time = |point: &Value| number_of(&point["asInt"]) as f64 / 1e9;
    let ours: f64 = points.iter().map(time).sum();
    let theirs = seconds_of_assists(&after) - seconds_of_assists(&before);
    let of_churn = |point: &&Value| attribute(point, "go.goroutine.function") == Some("main.scatter".into());
    let churn: f64 = points.iter().filter(of_churn).map(time).sum();
    println!("assists {ours} s, the runtime's {theirs} s, of them main.scatter's goroutines {churn} s");
    assert!(theirs > 0.02, "the load made {theirs} s of assists only");
    // The runtime forgets up to 5 us a P and cycle; the first cycle, which is not the account's, may have had assists too.
    assert!(
        (0.98..1.05).contains(&(ours / theirs)),
        "{ours} s, the runtime's {theirs} s"
    );
    assert!(churn > 0.95 * ours, "{points:#?}");
    let spans = output.spans("go-shop");
    let mut told = 0;
    for cycle in spans.iter().filter(|span| span["name"] == "go.gc.cycle") {
        let number = |key: &str| attribute(cycle, key).map_or(0, |value| number_of(&value));
        let whole = number("go.gc.cpu.assist_ns");
        let Some(payers) = payers(cycle) else {
            assert!(whole < 10_000, "{whole} ns of assists and nobody paid: {cycle}");
            continue;
        };
        told += 1;
        let sum = payers.iter().map(|(_, time)| time).sum::<i64>() + number("go.gc.assist.others_ns");
        // What a P had not handed in when the cycle ended is in ours alone.
        assert!(
            (whole..=whole + 2 * 5000).contains(&sum),
            "{sum} ns, the cycle has {whole}: {cycle}"
        );
        assert!(payers.is_sorted_by_key(|(_, time)| -time), "{payers:?}");
    }
    assert!(told > 5, "{told} cycles with payers");
}

/// The heap cannot be kept below the limit: the GC would take all of the CPU, and is held back.
#[test]
fn the_limiter_is_told_and_so_are_sweeper_and_scavenger() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOGC", "off"), ("GOMEMLIMIT", "16MiB"), ("GOMAXPROCS", "2")]);
    shop.get("/hold?mb=48");
    // Until the limiter has come on at least once.
    for _ in 0..20 {
        shop.get("/churn?mb=64&n=3");
        if figure(&shop.oracle(), "/gc/limiter/last-enabled:gc-cycle") > 0.0 {
            break;
        }
    }
    let before = shop.oracle();
    let output = Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1).stop();
    let after = shop.oracle();
    let last = |name: &str| {
        let points = output.points("go-shop", name);
        points.first().map(|point| number_of(&point["asInt"]))
    };
    let [low, high] = [&before, &after].map(|account| figure(account, "/gc/limiter/last-enabled:gc-cycle") as i64);
    assert!(low > 0, "the limiter was never on");
    let cycle = last("go.gc.limiter.last_enabled_cycle").unwrap();
    println!("limiter on last in cycle {cycle}, the runtime's {low} to {high}");
    assert!((low..=high).contains(&cycle), "{cycle}, the runtime's {low} to {high}");
    assert!((0..=1).contains(&last("go.gc.limiter.enabled").unwrap()));
    let live = figure(&after, "/memory/classes/heap/objects:bytes") as i64;
    let (debt, left) = (last("go.gc.sweep.debt").unwrap(), last("go.gc.sweep.left").unwrap());
    println!("sweep debt {debt}, left {left}");
    assert!(
        debt <= left && left < 16 * live,
        "debt {debt}, left {left}, objects {live}"
    );
    // All that is mapped is over the limit: the scavenger has a goal, some percent below it.
    let goals = output.points("go-shop", "go.memory.scavenge.goal");
    let by = |point: &&Value| attribute(point, "go.memory.scavenge.goal_by") == Some("gomemlimit".into());
    let goal = goals.iter().find(by).map(|point| number_of(&point["asInt"]));
    println!("scavenge goal {goal:?}");
    assert!(
        goal.is_some_and(|goal| (12 << 20..=16 << 20).contains(&goal)),
        "{goals:#?}"
    );
    assert_eq!(output.points("go-shop", "go.memory.scavenged").len(), 2);
}
