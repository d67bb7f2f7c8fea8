//! Stops of the world: why, who asked, who was last; and why a GC cycle began.

mod common;

use std::{thread, time::Duration};

use common::{Agent, attribute, load, number_of, privileged, shop};
use serde_json::Value;

fn text(of: &Value, key: &str) -> String {
    let value = attribute(of, key).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn length(span: &Value) -> i64 {
    number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"])
}

fn parts<'a>(spans: &'a [Value], whole: &Value) -> Vec<&'a Value> {
    spans
        .iter()
        .filter(|span| span["parentSpanId"] == whole["spanId"])
        .collect()
}

/// Values counted by one of the runtime's own histograms.
fn counted(account: &Value, name: &str) -> i64 {
    common::list(&account["metrics"][name]["counts"]).map(number_of).sum()
}

#[test]
fn stops_have_a_reason_and_cycles_a_trigger() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let agent = Agent::run(
        &[
            "--pid",
            &shop.pid().to_string(),
            "--metric-interval",
            "1s",
            "--max-spans",
            "100000",
        ],
        1,
    );
    let before = shop.oracle();
    for _ in 0..5 {
        shop.get("/gc");
        shop.get("/debug/stacks");
        shop.get("/processors");
    }
    load(&[shop.url("/alloc?mb=4")], 100, 1, 2);
    // The load's last cycle is over when one that is asked for is.
    shop.get("/gc");
    let after = shop.oracle();
    thread::sleep(Duration::from_millis(200));
    let output = agent.stop();
    let spans = output.spans("go-shop");
    let stops: Vec<&Value> = spans
        .iter()
        .filter(|span| span["name"].as_str().is_some_and(|name| name.starts_with("go.stw ")))
        .collect();
    let more = |name: &str| counted(&after, name) - counted(&before, name);
    // Every stop that is not the GC's by the runtime's own account; reading that account stops nothing.
    assert_eq!(stops.len() as i64, more("/sched/pauses/total/other:seconds"));
    let told: Vec<&&Value> = stops
        .iter()
        .filter(|stop| text(stop, "go.stw.reason") == "all goroutines stack trace")
        .collect();
    assert_eq!(told.len(), 5, "{stops:#?}");
    for stop in &told {
        assert!(text(stop, "go.stw.requested_at").starts_with("main.stacks ("), "{stop}");
        let parts = parts(&spans, stop);
        assert_eq!(
            parts.iter().map(|part| length(part)).sum::<i64>(),
            length(stop),
            "{parts:?}"
        );
    }
    // One more P, and back again.
    let changed: Vec<&&Value> = stops
        .iter()
        .filter(|stop| text(stop, "go.stw.reason") == "GOMAXPROCS")
        .collect();
    assert_eq!(changed.len(), 10, "{stops:#?}");
    for stop in &changed {
        assert!(
            text(stop, "go.stw.requested_at").starts_with("main.processors ("),
            "{stop}"
        );
    }
    let cycles: Vec<&Value> = spans.iter().filter(|span| span["name"] == "go.gc.cycle").collect();
    let triggered = |by: &str| -> Vec<&&Value> {
        cycles
            .iter()
            .filter(|cycle| text(cycle, "go.gc.trigger") == by)
            .collect()
    };
    let (forced, heap) = (triggered("forced"), triggered("heap"));
    let cycles_of = |account: &Value, name: &str| number_of(&account["metrics"][name]);
    let new = |name: &str| cycles_of(&after, name) - cycles_of(&before, name);
    assert_eq!(forced.len() as i64, new("/gc/cycles/forced:gc-cycles"));
    assert_eq!((forced.len() + heap.len()) as i64, new("/gc/cycles/total:gc-cycles"));
    assert!(heap.len() > 5, "{}", heap.len());
    for cycle in &forced {
        assert!(
            text(cycle, "go.stw.requested_at").starts_with("main.forceGC ("),
            "{cycle}"
        );
        assert_eq!(text(cycle, "go.gc.heap.goal_by"), "gogc");
    }
    assert!(
        heap.iter()
            .any(|cycle| text(cycle, "go.stw.requested_at").starts_with("main.alloc ")),
        "{heap:#?}"
    );
    // Both stops of every cycle are divided in two.
    for cycle in &cycles {
        for phase in parts(&spans, cycle) {
            let stopped = phase["name"] != "go.gc.mark";
            assert_eq!(parts(&spans, phase).len(), if stopped { 2 } else { 0 }, "{phase}");
        }
    }
    let reasons: Vec<String> = output
        .points("go-shop", "go.stw.duration")
        .iter()
        .map(|point| format!("{} {}", text(point, "go.stw.reason"), number_of(&point["count"])))
        .collect();
    for reason in ["GC sweep termination", "GC mark termination"] {
        assert!(reasons.contains(&format!("{reason} {}", cycles.len())), "{reasons:?}");
    }
}

/// A loop without a call cannot be preempted: all others stand still until it ends, and it is told which.
#[test]
fn who_is_late_to_stop_is_named() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GODEBUG", "asyncpreemptoff=1"), ("GOMAXPROCS", "2")]);
    let agent = Agent::run(
        &[
            "--pid",
            &shop.pid().to_string(),
            "--metric-interval",
            "1s",
            "--max-spans",
            "100000",
        ],
        1,
    );
    thread::scope(|scope| {
        for _ in 0..3 {
            let tight = scope.spawn(|| shop.get("/tight?millions=300"));
            thread::sleep(Duration::from_millis(40));
            shop.get("/gc");
            tight.join().unwrap();
        }
    });
    thread::sleep(Duration::from_millis(200));
    let output = agent.stop();
    let spans = output.spans("go-shop");
    // Stops that took long to come about.
    let slow: Vec<&Value> = spans
        .iter()
        .filter(|span| span["name"] == "go.gc.stw.sweep_termination" || span["name"] == "go.gc.stw.mark_termination")
        .filter(|span| {
            parts(&spans, span)
                .first()
                .is_some_and(|stopping| length(stopping) > 10_000_000)
        })
        .collect();
    let names: Vec<String> = spans
        .iter()
        .map(|span| format!("{} {}", span["name"], length(span)))
        .collect();
    assert!(slow.len() >= 2, "{names:#?}");
    for stop in slow {
        assert!(
            text(stop, "go.stw.last_to_stop.at").starts_with("main.tight ("),
            "{stop}"
        );
        assert!(
            text(stop, "go.stw.last_to_stop.goroutine.function").starts_with("net/http."),
            "{stop}"
        );
    }
}

/// Without GOGC only the limit can set a goal, and begin a cycle.
#[test]
fn a_goal_that_the_memory_limit_sets_is_told() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOGC", "off"), ("GOMEMLIMIT", "48MiB")]);
    let agent = Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1);
    for _ in 0..20 {
        shop.get("/alloc?mb=16");
    }
    thread::sleep(Duration::from_millis(200));
    let output = agent.stop();
    let spans = output.spans("go-shop");
    let cycles: Vec<&Value> = spans.iter().filter(|span| span["name"] == "go.gc.cycle").collect();
    assert!(cycles.len() > 1, "{spans:#?}");
    for cycle in cycles {
        let number = |key: &str| attribute(cycle, key).map(|value| number_of(&value));
        assert_eq!(text(cycle, "go.gc.heap.goal_by"), "gomemlimit", "{cycle}");
        assert_eq!(text(cycle, "go.gc.trigger"), "heap", "{cycle}");
        assert_eq!(number("go.config.gogc"), None, "{cycle}");
        assert_eq!(number("go.memory.limit"), Some(48 << 20), "{cycle}");
    }
}

/// Without either nothing sets one: it is absent, not the largest number there is.
#[test]
fn a_goal_that_nothing_sets_is_absent() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOGC", "off")]);
    let agent = Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1);
    shop.get("/gc");
    thread::sleep(Duration::from_millis(1500));
    let output = agent.stop();
    for metric in ["go.memory.gc.goal", "go.config.gogc", "go.memory.limit"] {
        assert_eq!(output.points("go-shop", metric), [] as [Value; 0], "{metric}");
    }
    assert!(output.said.contains("heap goal none"), "{}", output.said);
    let spans = output.spans("go-shop");
    let cycle = spans.iter().find(|span| span["name"] == "go.gc.cycle");
    let cycle = cycle.expect("the cycle that was asked for");
    for key in ["go.gc.heap.goal_bytes", "go.gc.heap.goal_by", "go.config.gogc"] {
        assert_eq!(attribute(cycle, key), None, "{key}");
    }
}
