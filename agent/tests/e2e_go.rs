//! Plane 2 of Go against the runtime's own execution trace, and planted waits.

mod common;

use std::{io::Write as _, process::Command, thread, time::Duration};

use common::{Agent, Output, attribute, clocks, demo, list, load, number_of, privileged, shop, stock, to_mono};
use serde_json::Value;

/// The trace, s.
const TRACED: u32 = 4;
/// What is compared keeps this far from the trace's ends, ns.
const MARGIN: i64 = 300_000_000;
const RUNNABLE: &str = "go.goroutine.runnable.duration";
const TIME: &str = "go.goroutine.time";
const UNSTAMPED: &str = "go.goroutine.runnable.unstamped";

/// Every point of a metric of go-shop without attributes, by its time.
fn series(output: &Output, metric: &str) -> Vec<Value> {
    let of_shop = output
        .metrics
        .iter()
        .flat_map(|line| list(&line["resourceMetrics"]))
        .filter(|resource| attribute(&resource["resource"], "service.name") == Some(Value::from("go-shop")));
    of_shop
        .flat_map(|resource| list(&resource["scopeMetrics"]))
        .flat_map(|scope| list(&scope["metrics"]))
        .filter(|found| found["name"] == metric)
        .flat_map(|found| ["sum", "exponentialHistogram"].map(|kind| &found[kind]["dataPoints"]))
        .flat_map(list)
        .cloned()
        .collect()
}

/// Counts by bucket index of an exponential histogram's point.
fn buckets(point: &Value) -> Vec<(i64, i64)> {
    let positive = &point["positive"];
    let offset = positive["offset"].as_i64().unwrap_or(0);
    let counts = list(&positive["bucketCounts"]).map(number_of);
    (offset..).zip(counts).collect()
}

/// What came between two points in buckets from `index` on.
fn at_least(before: &Value, after: &Value, index: i64) -> i64 {
    let count = |point: &Value| -> i64 {
        let from = buckets(point).into_iter().filter(|(of, _)| *of >= index);
        from.map(|(_, count)| count).sum()
    };
    count(after) - count(before)
}

/// The bucket of a scale-4 exponential histogram in seconds that a value falls into.
fn bucket_of(nanos: i64) -> i64 {
    ((nanos as f64 / 1e9).log2() * 16.0).ceil() as i64 - 1
}

/// Time that goroutines spent in a state until a point's time, ns; waiting, for reasons that begin so.
fn spent(output: &Output, at: &Value, state: &str, reason: &str) -> i64 {
    let is = |point: &Value| {
        let of_reason = |held: Value| held.as_str().unwrap().starts_with(reason);
        point["timeUnixNano"] == at["timeUnixNano"]
            && attribute(point, "go.goroutine.state") == Some(state.into())
            && (reason.is_empty()
                || attribute(point, "go.goroutine.system") == Some(false.into())
                    && attribute(point, "go.goroutine.wait_reason").is_some_and(of_reason))
    };
    let points = series(output, TIME).into_iter().filter(is);
    points.map(|point| number_of(&point["asInt"])).sum()
}

/// What the trace has for a state or a reason, ns; 0 when it never came.
fn sum_of(stretch: &Value) -> i64 {
    stretch.get("sum_ns").map_or(0, number_of)
}

fn tracestat(file: &std::path::Path, range: Option<(i64, i64)>) -> Value {
    let mut command = Command::new(demo("tracestat"));
    if let Some((from, to)) = range {
        command.args(["-from", &from.to_string(), "-to", &to.to_string()]);
    }
    let output = command.arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits of `bound` ns and more, by the agent (a bucket below and above it), and by the trace.
struct Longer {
    bound: i64,
    ours: (i64, i64),
    theirs: i64,
}

/// What the agent and the trace say of the same seconds.
struct Compared {
    ours: i64,
    starts: i64,
    longer: Vec<Longer>,
    /// Time in a state, ns, by the agent, and by the trace.
    times: Vec<(&'static str, i64, i64)>,
}

/// go-shop on one P, under as much load on `paths` as `connections` carry.
fn compare(paths: &[&str], connections: u32) -> Compared {
    let stock = stock(false);
    let shop = shop(Some(&stock), &[("GOMAXPROCS", "1")]);
    let agent = Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1);
    let urls: Vec<String> = paths
        .iter()
        .map(|path| {
            let (weight, path) = path.split_once(':').unwrap();
            format!("{weight}:{}", shop.url(path))
        })
        .collect();
    let generator = thread::spawn(move || load(&urls, 0, TRACED + 4, connections));
    thread::sleep(Duration::from_millis(1500));
    let trace = shop.get_bytes(&format!("/debug/trace?seconds={TRACED}"));
    generator.join().unwrap();
    let (mono, wall) = clocks();
    let output = agent.stop();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&trace).unwrap();

    let whole = tracestat(file.path(), None);
    let (begin, end) = (number_of(&whole["begin_mono_ns"]), number_of(&whole["end_mono_ns"]));
    let within: Vec<(i64, Value)> = series(&output, RUNNABLE)
        .into_iter()
        .map(|point| (to_mono(&point["timeUnixNano"], mono, wall), point))
        .filter(|(time, _)| (begin + MARGIN..end - MARGIN).contains(time))
        .collect();
    let [(from, first), .., (to, last)] = within.as_slice() else {
        panic!("{} readings within the trace:\n{}", within.len(), output.said);
    };
    let unstamped = |time: &Value| {
        let points = series(&output, UNSTAMPED);
        let at = points.iter().find(|point| point["timeUnixNano"] == *time);
        at.map_or(0, |point| number_of(&point["asInt"]))
    };
    let between = |point: &Value| number_of(&point["count"]) + unstamped(&point["timeUnixNano"]);
    let ours = between(last) - between(first);
    let theirs = tracestat(file.path(), Some((*from, *to)));
    // Those that found a P right at the end of a system call nobody schedules.
    let resumed = number_of(&theirs["resumed"]);
    let starts = number_of(&theirs["starts"]) - resumed;
    println!(
        "{ours} switches, {starts} in the trace of {} ms, {resumed} more after a system call at once, ratio {:.4}",
        (to - from) / 1_000_000,
        ours as f64 / starts as f64
    );
    // How many waited for longer, for each bound of the trace's histogram.
    let histogram: Vec<(i64, i64)> = list(&theirs["latency"]["histogram"])
        .map(|bucket| (number_of(&bucket["low_ns"]), number_of(&bucket["count"])))
        .collect();
    let longer = histogram
        .iter()
        .map(|(bound, _)| {
            let theirs = histogram
                .iter()
                .filter(|(low, _)| low >= bound)
                .map(|(_, count)| count)
                .sum();
            let bucket = bucket_of(*bound);
            let ours = (at_least(first, last, bucket + 2), at_least(first, last, bucket - 1));
            Longer {
                bound: *bound,
                ours,
                theirs,
            }
        })
        .collect();
    let times = ["running", "runnable"].map(|state| {
        let ours = spent(&output, last, state, "") - spent(&output, first, state, "");
        let theirs = number_of(&theirs["states"][state]["sum_ns"]);
        println!(
            "{state}: {ours} ns, the trace's {theirs}, ratio {:.4}",
            ours as f64 / theirs as f64
        );
        (state, ours, theirs)
    });
    // By reasons that the service's goroutines alone wait for; the tracer's own and the runtime's are in the trace too.
    // sync.Cond has a reason of its own there.
    let reasons = [("network", "IO wait"), ("sync", "sync.")];
    let waits = reasons.map(|(traced, reason)| {
        let time = spent(&output, last, "waiting", reason) - spent(&output, first, "waiting", reason);
        let conditions = if traced == "sync" {
            sum_of(&theirs["waits"]["sync.(*Cond).Wait"])
        } else {
            0
        };
        let theirs = sum_of(&theirs["waits"][traced]) + conditions;
        println!(
            "{reason}: {time} ns, the trace's {theirs}, ratio {:.4}",
            time as f64 / theirs as f64
        );
        (reason, time, theirs)
    });
    let times = times.into_iter().chain(waits).collect();
    Compared {
        ours,
        starts,
        longer,
        times,
    }
}

#[track_caller]
fn check_count(compared: &Compared, least: i64) {
    let Compared { ours, starts, .. } = compared;
    assert!(*starts > least, "{starts} are too few to compare");
    assert!(
        (ours - starts).abs() * 100 <= *starts,
        "{ours} switches, {starts} in the trace"
    );
}

/// Some hundred thousand, handed from goroutine to goroutine: most wait for a microsecond or two, of which the trace sees the
/// probes' own part too.
#[test]
fn many_switches_are_those_of_the_execution_trace() {
    if privileged() {
        // An emulated machine makes fewer.
        let is_slow = common::is_slow();
        let least = if is_slow { 1000 } else { 50_000 };
        check_count(&compare(&["20:/item?id={n}", "1:/chan?n=20"], 24), least);
    }
}

/// Goroutines that compute for a millisecond each, and wait for each other.
#[test]
fn waits_for_a_p_last_as_long_as_in_the_execution_trace() {
    if !privileged() {
        return;
    }
    let compared = compare(&["1:/spin?ms=1&n=6"], 6);
    check_count(&compared, 1000);
    // Short ones are not counted alike: the trace's stamps lie outside the probes' traps.
    let mut waits = compared
        .longer
        .iter()
        .filter(|waits| waits.bound > 1_000_000)
        .peekable();
    assert!(waits.peek().is_some(), "no wait of a millisecond");
    for Longer { bound, ours, theirs } in waits {
        let slack = compared.starts / 50;
        assert!(
            (ours.0 - slack..=ours.1 + slack).contains(theirs),
            "{theirs} of {} waited for {bound} ns and more, by us {ours:?}",
            compared.starts
        );
    }
    for (state, ours, theirs) in compared.times {
        // Waits that began before the trace are not known to it.
        let more = if ["running", "runnable"].contains(&state) {
            1
        } else {
            100
        };
        let ratio = ours as f64 / theirs as f64;
        assert!(
            (0.99..1.0 + 0.01 * f64::from(more)).contains(&ratio),
            "{state}: {ours} ns, the trace's {theirs}"
        );
    }
}

/// Eight goroutines that compute for 50 ms on one P: all but the first wait, each longer than the one before.
#[test]
fn goroutines_without_a_p_are_spans_with_their_creator() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "1")]);
    let agent = Agent::run(&["--pid", &shop.pid().to_string()], 1);
    let answer: Value = serde_json::from_str(&shop.get("/spin?ms=50&n=8")).unwrap();
    thread::sleep(Duration::from_millis(200));
    let output = agent.stop();
    // Under the threshold by the runtime's clock, over it by ours, or the other way round: neither.
    let slow = |nanos: &i64| *nanos > 12_000_000;
    let mut planted: Vec<i64> = list(&answer["start_waits_ns"]).map(number_of).filter(slow).collect();
    planted.sort_unstable();
    assert!(planted.len() >= 6, "{answer}");

    let of_spin = |span: &Value| {
        attribute(span, "go.goroutine.function").is_some_and(|name| name.as_str().unwrap().starts_with("main.spin.func"))
            // Created and not yet run: a goroutine that was preempted waits again.
            && attribute(span, "go.goroutine.runnable.source") == Some("ready".into())
    };
    let spans: Vec<Value> = output.spans("go-shop").into_iter().filter(of_spin).collect();
    let mut waits: Vec<i64> = spans
        .iter()
        .map(|span| number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"]))
        .filter(slow)
        .collect();
    waits.sort_unstable();
    assert_eq!(waits.len(), planted.len(), "{waits:?} for {planted:?}\n{}", output.said);
    for (wait, planted) in waits.iter().zip(&planted) {
        // Theirs begins before the go statement and ends after the goroutine's first instruction.
        assert!(
            wait <= planted && planted - wait < 5_000_000,
            "{waits:?} for {planted:?}"
        );
    }
    let mut goids = std::collections::HashSet::new();
    for span in &spans {
        assert!(
            span["name"].as_str().unwrap().starts_with("runnable main.spin.func"),
            "{span}"
        );
        assert_eq!(
            attribute(span, "go.goroutine.creator.function"),
            Some("main.spin".into()),
            "{span}"
        );
        let file = attribute(span, "go.goroutine.creator.file").unwrap();
        assert!(file.as_str().unwrap().ends_with("faults.go"), "{span}");
        let line = attribute(span, "go.goroutine.creator.line").unwrap();
        assert!(line.as_i64().unwrap() > 0, "{span}");
        assert_eq!(attribute(span, "go.goroutine.system"), Some(false.into()), "{span}");
        assert!(attribute(span, "go.goroutine.wait_reason").is_some(), "{span}");
        goids.insert(attribute(span, "go.goroutine.id").unwrap().as_i64().unwrap());
    }
    assert_eq!(goids.len(), spans.len(), "each is a goroutine of its own");
}
