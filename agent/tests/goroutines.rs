//! Goroutines alive, by where they come from, against what the runtime itself says of each (runtime.Stack).

mod common;

use std::{collections::BTreeMap, thread, time::Duration};

use common::{Agent, Output, attribute, number_of, privileged, shop};
use serde_json::Value;

/// Goroutines by the go statement that made them (file's name and line) and what they do.
type Counts = BTreeMap<(String, String), i64>;

/// As runtime.Stack prints them: "goroutine 7 [chan receive, 2 minutes]:", and at the end "created by F in goroutine 1" with
/// the place in the next line.
fn told(stacks: &str) -> Counts {
    let mut counts = Counts::new();
    for goroutine in stacks.trim().split("\n\n") {
        let state = goroutine.split(['[', ']']).nth(1).unwrap();
        let state = state.split(',').next().unwrap();
        let place = goroutine
            .split("created by ")
            .nth(1)
            .map_or("", |made| made.lines().nth(1).unwrap());
        let place = place.trim().split(" +0x").next().unwrap().rsplit('/').next().unwrap();
        *counts.entry((place.to_owned(), state.to_owned())).or_default() += 1;
    }
    counts
}

/// As the agent says; the runtime's own goroutines, which runtime.Stack leaves out, are left out.
fn seen(output: &Output) -> Counts {
    let mut counts = Counts::new();
    for point in output.points("go-shop", "go.goroutine.alive") {
        let text = |key| Some(attribute(&point, key)?.as_str()?.to_owned());
        if attribute(&point, "go.goroutine.system") == Some(Value::from(true)) {
            continue;
        }
        let state = text("go.goroutine.wait_reason")
            .or_else(|| text("go.goroutine.state"))
            .unwrap();
        let file = text("go.goroutine.creator.file").unwrap_or_default();
        let place = match attribute(&point, "go.goroutine.creator.line") {
            // runtime.main is made by the runtime's first instructions, which have no place in a file.
            Some(line) if !file.starts_with('<') => format!("{}:{line}", file.rsplit('/').next().unwrap()),
            _ => String::new(),
        };
        *counts.entry((place, state)).or_default() += number_of(&point["asInt"]);
    }
    counts
}

/// What a counter says of goroutines that were started with a function.
fn counted(output: &Output, metric: &str, function: &str) -> i64 {
    let of_function = |point: &&Value| attribute(point, "go.goroutine.function") == Some(Value::from(function));
    let points = output.points("go-shop", metric);
    points
        .iter()
        .filter(of_function)
        .map(|point| number_of(&point["asInt"]))
        .sum()
}

#[test]
fn a_leak_is_a_line_that_grows() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let agent = Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "500ms"], 1);
    // One look before the leak at least, whenever it comes.
    for _ in 0..300 {
        if !agent.points("go-shop", "go.goroutine.alive").is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..3 {
        shop.get("/leak?n=1000");
        thread::sleep(Duration::from_millis(700));
    }
    let told = told(&shop.get("/debug/stacks"));
    // A leak is what is there at each of the last looks, and one comes a second.
    thread::sleep(Duration::from_secs(5));
    let output = agent.stop();
    let seen = seen(&output);
    println!("{told:#?}\n{seen:#?}");
    let leaked = |counts: &Counts| {
        let found = counts
            .iter()
            .find(|((_, state), count)| state == "chan receive" && **count >= 3000);
        found.map(|(key, count)| (key.clone(), *count))
    };
    assert_eq!(leaked(&seen), leaked(&told));
    assert!(leaked(&told).is_some_and(|((place, _), count)| place.starts_with("faults.go:") && count == 3000));
    // The one that answers runs while it tells, and its connection may come and go; the rest stands still.
    let still = |counts: &Counts| -> Counts {
        let still = counts
            .iter()
            .filter(|((_, state), _)| !["running", "runnable", "syscall", "IO wait"].contains(&state.as_str()));
        still.map(|(key, count)| (key.clone(), *count)).collect()
    };
    assert_eq!(still(&seen), still(&told));
    assert_eq!(counted(&output, "go.goroutine.found", "main.forget"), 3000);
    assert_eq!(counted(&output, "go.goroutine.gone", "main.forget"), 0);
    assert!(
        output.said.contains("goroutines grow: main.forget +3000"),
        "{}",
        output.said
    );
    let left_out: Vec<i64> = output
        .points("go-shop", "go.goroutine.left_out")
        .iter()
        .map(|point| number_of(&point["asInt"]))
        .collect();
    assert_eq!(left_out, [0]);
}
